# SPDX-License-Identifier: Apache-2.0
"""What .NET's runtime and its images say: managed code, methods, types and exceptions.

From the ground up:

- `cli_header`, `metadata_tables`, `signature_types`, `metadata`: ECMA-335 metadata of one image, which gives names to
  tokens.
- `bounded_json`, `contract`, `runtime_layout`: where the runtime's structures have what, by its own contract or by what
  versions have that were seen.
- `runtime_memory`, `method_tables`, `module_images`, `type_metadata`, `method_attributes`, `generic_arguments`: types
  and their images, told from other memory by their cross-references; `methods` with `dynamic_signature`: methods.
- `heap_objects`, `exception_class`, `composed_messages`, `stack_trace`, `exception_objects`: exception objects; as
  values they are in `managed_exception`, and their stacks as text in `stack_text`.
- `runtime_module`, `runtime_threads`, `thread_handles`, `nested_exceptions`: the runtime's image, its structures of the
  threads, and the exceptions of each; `likely_exception`, `stack_exceptions`: what is left where much is absent.
- `runtime`: what the runtime of one process says of its threads, exceptions and methods; `structure_map`: what kind of
  word is where in a structure.
- `jit_code`, `jit_code_x86` with `gc_info_x86`: from an address in JIT-compiled code to its method and unwind data;
  `stub_x86`: code through which native code calls managed code.
- `precompiled_functions`, `native_format`, `ready_to_run`, `ngen`, `precompiled`: from an address in precompiled
  code to its method.
- `process_code`: the entry point. Names, unwind data and exceptions of a process's managed code, each question inside a
  guard. `structure_summary`: what was learnt of the runtime's structures, without the process's data.
- `crash_buffer`: what an application of NativeAOT, which has none of these structures, wrote of itself.
"""
