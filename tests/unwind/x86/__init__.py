# SPDX-License-Identifier: Apache-2.0
"""Worked examples of x86 stacks, and generated programs run in an emulator and unwound at every instruction."""
