# SPDX-License-Identifier: Apache-2.0
r"""Reads the files of published stacks: `tests/stacks/*.txt`.

A file has one line `module!function` for each frame, innermost first, as a debugger prints them. Lines that begin with
`#` are comments. A line that begins with `~` is a frame that a handler has unwound: what it wrote is still on the
stack, below the frames that are live. Lines that begin with `!` say the rest:

    !arch x86                       32-bit code; x64 without this line
    !code 0xC0000005 0 0x18         the exception of a dispatch: its code and parameters. One line for each dispatch,
                                    innermost first; without one it is an access violation
    !throw std::runtime_error "no"  the same for a C++ exception: type and message; `!throw rust_panic` is a Rust panic
    !int29 7                        the innermost function has failed fast, with this code
    !box "caption" "text"           what the innermost MessageBox function shows; \n is a new line
    !exports app!Run app!Stop       functions that are exported, beside those of `exports.tsv`, which says how to write
                                    a decorated name
    !exports-only                   what is before holds for both modes; what follows is expected only if no names but
                                    exports are known. There, `!thrown-at` and `!signature` need only the right module
    !all-names                      what follows is expected only if all names are known

What must come out:

    !row, !no-row                   whether the thread is reported
    !handled                        the thread has no row, but is listed where exceptions that were taken are asked for
    !verdict CRASHED_WAITING_FOR_WER    a name of `VerdictCode` (`throwstack/report/verdict.py`); an error box over an
                                    exception is CRASHED
    !exception ACCESS_VIOLATION     what the title of the exception begins with; `none` if there must be none
    !thrown-at app!Parse            without the offset
    !says the filter of app!Run     what the text of the verdict contains
    !signature app!Parse            without the hash; `... | app!Parse`: how it ends
    !xfail reason                   what is right is written down, and the tool does not find it yet
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from throwstack.core.registers import Arch
from throwstack.report.verdict import VerdictCode

FOLDER = Path(__file__).parent
DISPATCHERS = frozenset({"KiUserExceptionDispatch", "KiUserExceptionDispatcher"})
RAISERS = frozenset({"RtlRaiseException", "RtlRaiseStatus"})
_UNWINDERS = frozenset({"RtlUnwind", "RtlUnwindEx"})


@dataclass(frozen=True)
class PublishedFrame:
    """A frame. `function` is empty if it has no name. `is_unwound`: a handler has unwound it, its bytes are left."""

    module: str
    function: str
    is_unwound: bool = False

    def __str__(self) -> str:
        """Return `module!function`."""
        return f"{self.module}!{self.function}"


@dataclass(frozen=True)
class Raised:
    """What a dispatch is about: an exception code with parameters, or a C++ object with its type and message."""

    code: int
    parameters: tuple[int, ...] = ()
    cpp_type: str = ""
    message: str = ""


@dataclass
class Expectation:
    """What must come out. Texts are None where the file does not say."""

    row: bool | None = None
    handled: bool = False
    verdict: str = ""
    says: str = ""
    exception: str | None = None
    thrown_at: str | None = None
    signature: str | None = None
    xfail: str = ""


@dataclass
class PublishedStack:
    """One file. `expected` has an `Expectation` for each of the two modes: all names known, and exports only."""

    name: str
    arch: Arch = Arch.X64
    frames: list[PublishedFrame] = field(default_factory=list)
    raised: list[Raised] = field(default_factory=list)
    fast_fail: int | None = None
    box: tuple[str, str] = ("", "")
    exports: dict[str, str] = field(default_factory=dict)
    expected: dict[str, Expectation] = field(
        default_factory=lambda: {"all names": Expectation(), "exports only": Expectation()}
    )

    def flags(self, index: int, *, raised: bool) -> int:
        """Return the flags of the record of the dispatch that frame `index` begins, a dispatcher or a raiser.

        EXCEPTION_NONCONTINUABLE if it was `raised` by the program; EXCEPTION_UNWINDING while RtlUnwind runs for it.
        """
        flags = 1 if raised else 0
        for frame in reversed(self.frames[:index]):
            if frame.function in _UNWINDERS:
                return flags | 2
            if frame.function in DISPATCHERS | RAISERS:
                break
        return flags

    @property
    def live(self) -> list[PublishedFrame]:
        """Return the frames that a debugger shows, innermost first."""
        return [frame for frame in self.frames if not frame.is_unwound]


MODES = ("all names", "exports only")


def read_stack(path: Path) -> PublishedStack:
    """Read one file; a ValueError says which line cannot be meant."""
    stack = PublishedStack(path.stem)
    modes: tuple[str, ...] = MODES
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not text.startswith("!"):
            stack.frames.append(_frame(f"{path.name}:{number}", text))
            continue
        word, _, rest = text[1:].partition(" ")
        rest = rest.strip()
        if word in {"all-names", "exports-only"}:
            modes = (word.replace("-", " "),)
        elif not _about_the_stack(stack, word, rest):
            for mode in modes:
                if not _about_the_result(stack.expected[mode], word, rest):
                    verdicts = f"no such verdict; there are {', '.join(VerdictCode.__members__)}"
                    message = f"{path.name}:{number}: {verdicts if word == 'verdict' else text}"
                    raise ValueError(message)
    return stack


def stack_files() -> list[Path]:
    """Return the files of all published stacks, sorted by name."""
    return sorted(FOLDER.glob("*.txt"))


def _frame(place: str, text: str) -> PublishedFrame:
    match = re.fullmatch(r"(~?)([^!\s]+)!(.*)", text)
    if match is None or re.search(r"\+0x[0-9a-f`]+( |$)", match[3], re.IGNORECASE):
        message = f"{place}: one module!function, without number and offset: {text}"
        raise ValueError(message)
    return PublishedFrame(match[2], match[3], bool(match[1]))


def _about_the_stack(stack: PublishedStack, word: str, rest: str) -> bool:
    match word:
        case "arch":
            stack.arch = Arch.X86 if rest == "x86" else Arch.X64
        case "code":
            code, *parameters = (int(item, 0) for item in rest.split())
            stack.raised.append(Raised(code, tuple(parameters)))
        case "throw":
            name, *message = shlex.split(rest)
            stack.raised.append(Raised(0xE06D7363, (), name, *message))
        case "int29":
            stack.fast_fail = int(rest, 0)
        case "box":
            caption, text = (item.replace(r"\n", "\n") for item in shlex.split(rest))
            stack.box = caption, text
        case "exports":
            for item in rest.split():
                name, _, decorated = item.partition("=")
                stack.exports[name] = decorated or name.partition("!")[2]
        case _:
            return False
    return True


def _about_the_result(expected: Expectation, word: str, rest: str) -> bool:
    match word:
        case "row":
            expected.row = True
        case "no-row":
            expected.row = False
            expected.verdict = expected.says = ""
            expected.exception = expected.thrown_at = expected.signature = None
        case "handled":
            expected.handled = True
        case "verdict":
            expected.verdict = rest
            return rest in VerdictCode.__members__
        case "says" | "exception" | "thrown-at" | "signature" | "xfail":
            setattr(expected, word.replace("-", "_"), rest)
        case _:
            return False
    return True
