# SPDX-License-Identifier: Apache-2.0
"""Describes what was thrown, as facts and in words.

- `describe`: the entry point. It chooses the family by the exception's code.
- One module for each family: `faults`, `cpp`, `gcc`, `clr`, `delphi`, `visual_basic`, `winrt`, `delay_load`,
  `debugger_signals`, `other_runtimes`.
- `throw_info`, `thrown_object`: types and values of Visual C++.
- `status`: names and messages of NTSTATUS, HRESULT and Win32 codes.
- `model`: what goes in and what comes out.
"""
