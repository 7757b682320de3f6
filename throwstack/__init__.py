# SPDX-License-Identifier: Apache-2.0
"""throwstack: find the thread that is stuck on an unhandled exception, and unwind the stack that threw.

`throwstack.open` opens a memory image and gives a `Dump`; `examples/` shows what to do with it. The engine takes memory
(`throwstack.core.memory`), a list of modules (`throwstack.images.modules`) and registers (`throwstack.core.registers`).
It knows no memory forensics framework: `throwstack.volatility` alone imports volatility3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from throwstack.core import logs
from throwstack.core.errors import ThrowstackError
from throwstack.report.json_form import to_json

if TYPE_CHECKING:
    from throwstack.volatility.dump import Dump

__all__ = ["ThrowstackError", "open", "to_json"]
__version__ = "0.1.0"

logs.install()


def open(  # noqa: A001 throwstack.open reads as what it does
    path: str | os.PathLike[str],
    *,
    symbols: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    symbol_path: str | None = None,
    image_path: str | None = None,
    page_files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    offline: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> Dump:
    """Open a memory image of a Windows machine.

    Args:
        path: the image: a complete or active crash dump, or whatever Volatility reads.
        symbols: directories with ISF files, as for `vol -s`; or a single one.
        symbol_path: where PDBs are, as WinDbg's `.sympath` takes it. None leaves it to the environment
            (`_NT_SYMBOL_PATH`), an empty text means nowhere.
        image_path: where the machine's DLLs and EXEs are, for pages that the image lacks. None as above
            (`_NT_EXECUTABLE_IMAGE_PATH`).
        page_files: the machine's page files, in the order in which Windows numbers them; or a single one.
        offline: ask no server. Otherwise those that `symbol_path` and `image_path` name are asked, and Microsoft's
            symbol server for the kernel's symbols if no ISF file is at hand.
        progress: is called with a percentage and a text while something takes long.

    Raises:
        ThrowstackError: the image cannot be opened, or the kernel's symbols are not at hand. The message is a line for
            the user.
    """
    from throwstack.volatility.dump import Dump  # noqa: PLC0415 volatility3 takes half a second to load

    return Dump(
        path,
        symbols=symbols,
        symbol_path=symbol_path,
        image_path=image_path,
        page_files=page_files,
        offline=offline,
        progress=progress,
    )
