# SPDX-License-Identifier: Apache-2.0
"""Finds the exceptions in flight on a thread: record and CONTEXT of each, and the stack that threw it.

- `search`: the entry point. It uses all ways to find a saved CONTEXT, the most reliable first.
- `x64`, `x86`: find CONTEXTs by frames and exception registrations, one module for each architecture.
- `gs_failure`, `exception_pointers`, `context_scan`: find CONTEXTs by global variables of a module, by pointers, and by
  a scan of the stack.
- `fast_fail`: int 29h, which leaves no CONTEXT.
- `saved_exception`: the result, and the checks that record and CONTEXT must pass.
- `stale_contexts`: tells CONTEXTs of exceptions in flight from those that handled exceptions left on the stack.
- `throwing_walks`: the stacks that threw, as they are shown.
"""
