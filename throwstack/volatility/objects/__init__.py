# SPDX-License-Identifier: Apache-2.0
"""Readers of structures of the kernel and the loader: threads, trap frames, modules, WoW64, objects waited for."""
