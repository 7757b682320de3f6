# SPDX-License-Identifier: Apache-2.0
"""Pages that a process has although its page tables do not map them, and where each of them comes from."""
