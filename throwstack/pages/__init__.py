# SPDX-License-Identifier: Apache-2.0
"""The pages of a process: those that its page tables map, those that they do not, and where each comes from."""
