# SPDX-License-Identifier: Apache-2.0
"""What .NET's runtime and its images say: managed code, methods, types and exceptions.

From the ground up:

- `cli_header`, `metadata_tables`, `signature_types`, `metadata`: ECMA-335 metadata of one image, which gives names to
  tokens.
- `jit_code`, `jit_code_x86` with `gc_info_x86`: from an address in JIT-compiled code to its method and unwind data.
- `precompiled_functions`, `native_format`, `ready_to_run`, `ngen`, `precompiled`: from an address in precompiled
  code to its method.
"""
