# SPDX-License-Identifier: Apache-2.0
"""What RtlVirtualUnwind of a real ntdll finds, at instructions of real functions, is what our unwinder finds."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tests.unwind.x64.pe_files import directories_of_environment, find_files, open_image

pytest.importorskip("unicorn")
from tests.unwind.x64.ntdll_oracle import Oracle

_FUNCTIONS = 150
_OTHER_IMAGES = 3
_MOST_INSTRUCTIONS = 40


def _images() -> tuple[list[Path], list[Path]]:
    files = list(find_files(directories_of_environment()))
    ntdlls = [path for path in files if path.name.lower() == "ntdll.dll" and open_image(path) is not None]
    others = [path for path in files if path not in ntdlls and open_image(path) is not None]
    return ntdlls, random.Random(1).sample(others, min(_OTHER_IMAGES, len(others)))


def _is_known_difference(oracle: Oracle, ip: int) -> bool:
    """Say whether Windows is known to take `ip` for something else.

    GCC's jump to a cold part, which Windows takes for a tail call; and the `ret` after the call that ends
    KiUserExceptionDispatcher and never returns, which Windows unwinds as if it were an `iretq`.
    """
    code = oracle.images.memory.read_available(ip, 8)
    function = oracle.function(ip)
    if code[:1] == b"\xe9":
        target = ip + 5 + struct.unpack_from("<i", code, 1)[0]
        cold = oracle.function(target)
        return cold is not None and cold.parts[0].info.prologue_size == 0 and bool(cold.parts[0].info.codes)
    return code[:1] == b"\xc3" and any(code.op.name == "PUSH_MACHFRAME" for code in function.parts[-1].info.codes)


def test_plans_agree_with_rtl_virtual_unwind() -> None:
    ntdlls, others = _images()
    if not ntdlls:
        pytest.skip("no ntdll.dll in the directories of THROWSTACK_PE_DIRS")
    chosen = random.Random(2)
    compared = 0
    for ntdll, image in [*((path, path) for path in ntdlls), *((ntdlls[-1], path) for path in others)]:
        oracle = Oracle(ntdll, image)
        entries = [entry for entry in oracle.entries() if not entry.unwind & 1]
        for entry in chosen.sample(entries, min(_FUNCTIONS, len(entries))):
            addresses = oracle.instructions(entry)
            for ip in chosen.sample(addresses, min(_MOST_INSTRUCTIONS, len(addresses))):
                gpr = oracle.random_registers()
                ours = oracle.ours(ip, gpr)
                if ours is None:
                    continue
                theirs = oracle.theirs(ip, entry, gpr)
                compared += 1
                assert ours == theirs or _is_known_difference(oracle, ip), f"{image} at {ip - oracle.image.base:#x}"
    assert compared
