# SPDX-License-Identifier: Apache-2.0
"""What every other room uses: memory, registers, CONTEXT and exception records, frames, text, budgets, the guard."""
