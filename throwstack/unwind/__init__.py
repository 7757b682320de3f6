# SPDX-License-Identifier: Apache-2.0
"""Unwinding: a package for each architecture, and what both share.

`target` is a process as one architecture sees it. `walk` is the walk loop, to which an architecture gives steps.
`after_call` says whether a call ends before an address.
"""
