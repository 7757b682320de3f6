# SPDX-License-Identifier: Apache-2.0
"""The kernel's and the loader's structures: threads, trap frames, modules, WoW64, the objects that threads wait for."""
