# SPDX-License-Identifier: Apache-2.0
"""What every other room uses: errors, memory, registers, CONTEXT and exception records, frames, text, budgets."""
