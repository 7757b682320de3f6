# SPDX-License-Identifier: Apache-2.0
"""Finds the pages of a process, whether or not its page tables map them, and says where each page comes from."""
