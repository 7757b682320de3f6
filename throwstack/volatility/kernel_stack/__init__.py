# SPDX-License-Identifier: Apache-2.0
"""Kernel stacks: the kernel's images, its frames, and the registers that they save for user mode."""
