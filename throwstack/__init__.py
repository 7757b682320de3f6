# SPDX-License-Identifier: Apache-2.0
"""throwstack: find the thread that is stuck on an unhandled exception, and unwind the stack that threw.

The engine takes memory (`throwstack.core.memory`), a list of modules (`throwstack.images.modules`) and registers
(`throwstack.core.registers`). It knows no memory forensics framework: `throwstack.volatility` alone imports
volatility3.
"""

from __future__ import annotations

from throwstack.core import logs

__version__ = "0.1.0"

logs.install()
