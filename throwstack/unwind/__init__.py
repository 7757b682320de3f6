# SPDX-License-Identifier: Apache-2.0
"""Unwinds stacks. There is a package for each architecture, and modules that both use.

`target` is a process as one architecture sees it. `walk` is the loop; each architecture supplies its steps.
`after_call` says whether the instruction before an address is a call. `code_outside` is what is known of code that is
not in an image. `thread_start` says whether a return address of 0 is the end of the stack.
"""
