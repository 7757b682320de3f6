# SPDX-License-Identifier: Apache-2.0
"""Every command that the README shows works when it is pasted into a shell, and answers what the README shows.

So do those of the documents that go on where it ends. The commands are run in the unpacked sdist, in the order of the
texts, in one shell. Those that are not are in `NOT_RUN`, each with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.install.kinds import clean_environment
from tests.support.vol import CHECKOUT

PARTS = os.environ.get("THROWSTACK_INSTALL", "")

NOT_RUN = {
    "make test": "it is the other tests",
    "pip install '.[scan]'": "takes dask from PyPI",
    "throwstack scan demo --pattern '*.DMP' -o results -s demo/isf --symbol-path demo/pdb": "takes dask",
    "throwstack report demo/MEMORY.DMP -s demo/isf --json - "
    "| jq -r '.crashes[] | [.process.name, .signature.text] | @tsv'": "takes jq",
    "pipx inject --include-apps volatility3 .": "tests/install/test_kinds.py, with the wheel",
    'uv tool install volatility3 --with-executables-from "throwstack @ file://$PWD"': "as before",
    "vol --single-swap-locations pagefile.sys -f MEMORY.DMP windows.unhandled": "takes the reader's page file",
    "vol -f MEMORY.DMP windows.cxrstack --symbol-path '/pdbs;srv*/symbols*https://SERVER/PATH'": "takes a server",
    'curl -gfL --create-dirs -o "pdbs/$name/$key/$name" "https://SERVER/PATH/$url"': "takes a server",
    "while IFS= read -r line; do": "around curl",
    "line=${line%,*}; key=${line##*,}; name=${line%,*}": "for curl",
    """url=$(printf %s "$name/$key/$name" | sed 's/%/%25/g; s/ /%20/g; s/#/%23/g')""": "for curl",
    "done < symbols-needed.txt": "around curl",
}


def commands(text: str) -> list[str]:
    """Return the commands in the README's `sh` blocks, one a line, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    joined = "".join(blocks).replace("\\\n", " ")
    return [" ".join(re.sub(r"(^|\s)#\s.*", "", line).split()) for line in joined.splitlines() if line.strip()]


def shown(text: str) -> list[str]:
    """Return the lines of output that the README shows (indented by four), blanks made one."""
    block = text.partition("It answers")[2].partition("## ")[0]
    return [" ".join(line.split()) for line in block.splitlines() if line.startswith("    ")]


README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
MORE = [(CHECKOUT / "docs" / name).read_text(encoding="utf-8") for name in ("install.md", "symbols.md", "options.md")]


def test_the_commands_that_are_not_run_are_in_the_texts():
    assert set(NOT_RUN) <= set(commands("\n".join([README, *MORE])))


def test_the_readme_shows_commands_in_such_blocks_only():
    """Outside them a line of four blanks shows output, and `bat` blocks repeat what a `sh` block says."""
    outside = re.sub(r"^```\w*\n.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^    (?:\$ |vol |throwstack |pip |make |python).*", outside, flags=re.MULTILINE) == []


@pytest.mark.skipif(not PARTS, reason="make test-install runs it")
def test_every_command_works_when_pasted_into_a_shell(tmp_path: Path):
    parts = Path(PARTS).resolve()
    shutil.unpack_archive(next((parts / "dist").glob("*.tar.gz")), tmp_path, filter="data")
    (clone,) = tmp_path.glob("throwstack-*/")
    run = [command for command in commands("\n".join([README, *MORE])) if command not in NOT_RUN]
    assert len(run) > 15
    variables = clean_environment(tmp_path, parts / "wheels")
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-v"],  # -v: says each command before it is run
        input="\n".join(run) + "\n",
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=clone,
        env=variables,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    printed = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert [line for line in shown(README) if line not in printed] == []
    assert len(shown(README)) > 10
