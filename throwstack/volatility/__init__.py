# SPDX-License-Identifier: Apache-2.0
"""From an image that Volatility 3 has opened to what the engine takes: memory, processes, threads, modules, names.

This package and the plugins are the only places that import volatility3.
"""
