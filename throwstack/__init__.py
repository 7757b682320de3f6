# SPDX-License-Identifier: Apache-2.0
"""throwstack: find the thread that is stuck on an unhandled exception, and unwind the stack that threw.

The engine. It knows no dump format and no memory forensics framework: it takes memory (`throwstack.memory`), a list
of modules (`throwstack.modules`) and registers (`throwstack.registers`). `throwstack.volatility` is the one package
here that imports volatility3.
"""

from __future__ import annotations

from throwstack import logs

__version__ = "0.1.0"

logs.install()
