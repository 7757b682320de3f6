# SPDX-License-Identifier: Apache-2.0
"""Writes user-mode minidumps, as minidumpapiset.h and winnt.h describe them. Knows neither Volatility nor the kernel.

Where to look:

- `dumped`: what a minidump is made from, as values
- `minidump_file`: the file itself: header, directory, places of streams, limits of RVAs
- `system_streams`, `thread_streams`, `module_streams`, `memory_lists`, `exception_stream`, `handle_stream`: the streams
- `thread_context`: CONTEXT records, raw as they are in memory, or made from the registers that are known
- `small_memory`, `full_memory`: which memory is written
- `image_version`: what a module's resources and debug directory say of it
- `new_file`: names of files, which never replace another file
- `write_minidump`: all of it together
"""
