# SPDX-License-Identifier: Apache-2.0
"""Lets Volatility forget the dumps that a process has closed.

Volatility remembers results of methods with `functools.lru_cache`, which keeps the objects that the methods belong to:
a layer, and with it the whole context with its symbol tables. The caches have a thousand entries, shared by all dumps,
so that many dumps stay alive after they were closed. A process that examines one after the other grows by 6 to 40 MB
with each.
"""

from __future__ import annotations

import functools
import gc
import sys
from typing import Any

_PACKAGE = "volatility3."
_caches: list[Any] = []
_modules: list[int] = [0]
"""How many modules were loaded when the caches were looked for."""


def forget_dumps() -> None:
    """Empty these caches. No dump may be open in this process."""
    if _modules[0] != len(sys.modules):
        found = (each for each in gc.get_objects() if isinstance(each, functools._lru_cache_wrapper))  # noqa: SLF001
        _caches.extend(each for each in found if str(each.__module__).startswith(_PACKAGE))
    for cache in _caches:
        cache.cache_clear()
    gc.collect()
    if _modules[0] != len(sys.modules):
        _modules[0] = len(sys.modules)
        gc.freeze()  # modules are no garbage, and collecting is quicker if it does not look at them
