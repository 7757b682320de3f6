# SPDX-License-Identifier: Apache-2.0
"""What the kernel keeps of processes and threads: threads, module lists, WoW64, objects that are waited for."""
