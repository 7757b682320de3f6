# SPDX-License-Identifier: Apache-2.0
"""The exceptions in flight on a thread: record and CONTEXT of each, and the stack that threw it.

- `search`: the entry point. It asks all routes, best first.
- `x64`, `x86`: routes by frames and registrations, one module for each architecture.
- `gs_failure`, `exception_pointers`, `context_scan`: routes by globals of a module, by pointers, by a scan.
- `fast_fail`: int 29h, which leaves no CONTEXT.
- `saved_exception`: the result, and the checks that record and CONTEXT must pass.
- `stale_contexts`: tells CONTEXTs of exceptions in flight from leftovers.
- `throwing_walks`: the stacks that threw, as they are shown.
"""
