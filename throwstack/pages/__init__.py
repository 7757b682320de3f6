# SPDX-License-Identifier: Apache-2.0
"""The pages of a process: finds them, whether or not its page tables map them, and says where each comes from."""
