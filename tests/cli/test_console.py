# SPDX-License-Identifier: Apache-2.0
"""How our commands end: the exit status, and at most one line, whatever happens to what they print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Forge
from tests.support.vol import CHECKOUT
from throwstack.cli import console
from throwstack.cli.main import main

posix = pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which `throwstack` is the command; its status is the line's."""
    command = f"throwstack() {{ '{sys.executable}' -m throwstack.cli \"$@\"; }}\n{line}"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env={**kept, **variables},
    )


@pytest.fixture(scope="module")
def doctor(forged: Forge) -> str:
    """A command with some twenty lines of results."""
    out, _ = forged("service-x64")
    return f"throwstack doctor '{out / 'MEMORY.DMP'}' -s '{out / 'isf'}'"


@posix
def test_a_reader_who_has_had_enough(doctor):
    done = shell(f"{{ {doctor}; echo status $? >&2; }} | head -1 > /dev/null")
    assert done.stderr == "status 0\n"


@posix
def test_a_reader_who_is_gone_before_the_first_line(doctor):
    """Whoever reads a result of a megabyte, too, may go at any time."""
    done = shell(f"{{ sleep 1; {doctor} --json -; echo status $? >&2; }} | true")
    assert done.stderr == "status 0\n"


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("options", ["", " --json -"])
def test_a_disk_that_is_full(doctor, options):
    done = shell(f"{doctor}{options} > /dev/full")
    assert (done.returncode, done.stderr) == (2, "throwstack: standard output: No space left on device\n")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_help_on_a_full_disk_reports_it():
    done = shell("throwstack doctor --help > /dev/full")
    assert (done.returncode, done.stderr) == (2, "throwstack: standard output: No space left on device\n")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("what", ["-h", "-r csv windows.unhandled"])
def test_volatility_on_a_disk_that_is_full(forged: Forge, what: str):
    """Its own command line ends in a traceback then."""
    out, _ = forged("service-x64")
    done = shell(f"throwstack vol -q --offline -s '{out / 'isf'}' -f '{out / 'MEMORY.DMP'}' {what} > /dev/full")
    assert done.returncode in {1, 2}
    assert done.stderr.splitlines()[-1].endswith(": No space left on device")
    assert "Traceback" not in done.stderr


@posix
def test_closed_standard_streams_cause_no_traceback(doctor):
    done = shell(f"{doctor} >&-")
    assert (done.returncode, done.stderr) == (2, "throwstack: standard output is closed\n")
    done = shell(f"{doctor} > /dev/null 2>&-")
    assert (done.returncode, done.stderr) == (0, "")
    done = shell("throwstack doctor 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (64, "", "")


@posix
def test_a_terminal_that_knows_ascii_alone(tmp_path):
    """A dump under a name that it cannot show; so may be the names in a dump."""
    dump = tmp_path / "größe.dmp"
    dump.write_text("no dump")
    done = shell(f"throwstack doctor '{dump}'", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (2, "")
    assert r"gr\xf6\xdfe.dmp: text file" in done.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["doctor"], ["doctor", "--no-such-option", "x"], ["no-such-command"], ["--no-such-option"]]
)
def test_wrong_usage_exits_with_64(arguments, capsys):
    """2, argparse's own, says that a dump cannot be examined."""
    assert main(arguments) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: throwstack")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["doctor", "--help"]])
def test_what_was_asked_for_is_no_error(arguments, capsys):
    assert main(arguments) == 0
    assert "throwstack" in capsys.readouterr().out


def test_a_file_that_cannot_be_read(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "a\x1b[31mb")]) == 2
    assert capsys.readouterr().err == f"throwstack doctor: {tmp_path}/a\\x1b[31mb: No such file or directory\n"


def test_a_defect_of_ours_does_not_end_as_if_nobody_were_stuck(capsys):
    """Python ends with 1 after an exception. That would say: examined, and nobody is stuck."""

    def lines():
        yield "MEMORY.DMP"
        message = "too \x1b[31mdeep"
        raise RecursionError(message)

    assert console.run("throwstack report", lambda: (0, lines())) == 2
    out, err = capsys.readouterr()
    assert out == "MEMORY.DMP\n"
    assert err.startswith("Traceback")
    assert err.splitlines()[-1] == (
        "throwstack report: unexpected RecursionError: too \\x1b[31mdeep: a defect of throwstack"
    )
    assert "\x1b" not in err


@pytest.mark.parametrize("command", ["report", "doctor"])
def test_a_path_that_no_file_can_have(command, capsys):
    assert main([command, "a\0b"]) == 2
    assert capsys.readouterr().err.startswith(f"throwstack {command}: a\\x00b: this can be no file's path")


def test_ctrl_c_ends_a_command_with_one_line(capsys):
    """What is being made is removed on the way out."""
    on_the_way = []

    def work():
        try:
            raise KeyboardInterrupt
        finally:
            on_the_way.append("tidied up")

    assert console.run("throwstack x", work) == 130
    assert capsys.readouterr() == ("", "throwstack x: interrupted\n")
    assert on_the_way == ["tidied up"]


@posix
def test_sigterm_ends_a_command_with_one_line(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert console.run("throwstack x", lambda: (os.kill(os.getpid(), signal.SIGTERM), ())) == 143
    assert capsys.readouterr() == ("", "throwstack x: ended by SIGTERM\n")
    assert signal.getsignal(signal.SIGTERM) is before


def _has_open(pid: int, path: Path) -> bool:
    with suppress(FileNotFoundError):  # one that was closed in the meantime
        return any(link.is_symlink() and link.resolve() == path for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


@posix
def test_ctrl_c_during_a_long_examination(tmp_path):
    """The search for the kernel of a raw image that has none: a terabyte of zeros that take no room."""
    image = tmp_path / "image.raw"
    image.touch()
    os.truncate(image, 1 << 40)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            # A shell's background jobs, of which these tests may be one, ignore Ctrl-C.
            (
                "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); print(flush=True); "
                f"from throwstack.cli.main import main; raise SystemExit(main(['doctor', '{image}']))"
            ),
        ],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not _has_open(process.pid, image):
        pass
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:  # Python drops a KeyboardInterrupt that is raised in a finalizer: press it again
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"throwstack: interrupted\n")
