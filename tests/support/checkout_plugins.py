# SPDX-License-Identifier: Apache-2.0
"""The plugins of this checkout as modules, whatever version may be installed."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tests.support.vol import CHECKOUT


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"checkout_{name}", CHECKOUT / "plugins" / "windows" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


UNHANDLED, CXRSTACK, STACKWALK = PLUGINS = [_load(name) for name in ("unhandled", "cxrstack", "stackwalk")]
