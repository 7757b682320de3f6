# SPDX-License-Identifier: Apache-2.0
"""Kernel stacks: the kernel's images, the frames on its stacks, and the user-mode registers saved on them."""
