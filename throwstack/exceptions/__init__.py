# SPDX-License-Identifier: Apache-2.0
"""Describes what was thrown, as facts for programs and in words for people.

- `describe`: the entry point. It chooses one of the following modules by the exception's code.
- One module for each kind of exception: `faults`, `cpp`, `gcc`, `clr`, `delphi`, `visual_basic`, `winrt`, `delay_load`,
  `debugger_signals`, `other_runtimes`.
- `throw_info`, `thrown_object`: types and values of Visual C++.
- `status`: names and messages of NTSTATUS, HRESULT and Win32 codes.
- `model`: the input and the output of a description.
"""
