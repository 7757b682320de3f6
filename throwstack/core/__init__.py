# SPDX-License-Identifier: Apache-2.0
"""The basics that all packages use: errors, memory, registers, CONTEXT and exception records, frames, text, budgets."""
