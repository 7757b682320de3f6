# SPDX-License-Identifier: Apache-2.0
"""Turns an image that Volatility 3 has opened into the engine's input: memory, processes, threads, modules, names.

This package and the plugins are the only places that import volatility3.
"""

from __future__ import annotations

# Volatility finds a stacker once its class exists, and every plugin of ours imports something from this package.
from throwstack.volatility.opening import cut_off as cut_off
from throwstack.volatility.opening import dump_layer as dump_layer
