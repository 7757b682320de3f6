# SPDX-License-Identifier: Apache-2.0
"""The set of fixtures: which program, built how, run how, with which scenario."""

from __future__ import annotations

from dataclasses import dataclass

from tests.live.build import X64_BUILDS, X86_BUILDS, Build


@dataclass(frozen=True)
class Fixture:
    """One crashed process. `crashes` is how many threads crash (or hang in shutdown), `exceptions` what each raises
    unhandled, `waits_for_debugger` whether AeDebug's sleeper is what keeps it. `waits` is how many threads only wait,
    with a stack that they noted.
    """

    build: Build
    is_wow64: bool
    program: str
    scenario: str
    crashes: int = 1
    exceptions: int = 1
    waits_for_debugger: bool = True
    waits: int = 0

    @property
    def arch(self) -> str:
        """Return `x64`, `x86` or `wow64`."""
        return "wow64" if self.is_wow64 else "x64" if self.build.is_64bit else "x86"

    @property
    def name(self) -> str:
        """Return the name of its directory."""
        return f"{self.arch}-{self.build.label}-{self.scenario}"


@dataclass(frozen=True)
class Scenario:
    """A scenario and the builds that it is run with on x64, x86 and WoW64."""

    name: str
    x64: tuple[str, ...]
    x86: tuple[str, ...]
    wow64: tuple[str, ...]
    program: str = "crash.exe"
    crashes: int = 1
    exceptions: int = 1
    waits_for_debugger: bool = True
    waits: int = 0


SCENARIOS = (
    Scenario(
        "shapes",
        ("gcc-O0", "gcc-O2", "clang-O0", "clang-O2"),
        ("gcc-O0", "gcc-O2", "clang-O0", "clang-O2", "clang-O2-fp"),
        ("gcc-O2", "clang-O0", "clang-O2"),
        crashes=8,
    ),
    Scenario("read", ("gcc-O2", "clang-O2"), ("clang-O2",), ("clang-O2",)),
    Scenario("leaf", ("gcc-O2", "clang-O2"), ("clang-O2",), ("clang-O2",)),
    Scenario("write", ("clang-O2",), ("clang-O2", "gcc-O2"), ("gcc-O0",), waits_for_debugger=False),
    Scenario("execute", ("clang-O2",), ("clang-O2",), ("clang-O2",)),
    Scenario("null", ("clang-O2", "gcc-O2"), ("clang-O2",), ("clang-O2",)),
    Scenario("garbage", ("clang-O0",), ("clang-O2-fp",), ("clang-O2",), waits_for_debugger=False),
    Scenario("divide", ("clang-O2",), ("clang-O0",), ("clang-O2",)),
    Scenario("overflow", ("clang-O2",), ("clang-O2",), ("clang-O2",), waits_for_debugger=False),
    Scenario("probe", ("gcc-O0", "gcc-O2", "clang-O2"), ("gcc-O2",), (), waits_for_debugger=False),
    Scenario("raise", ("clang-O2",), ("clang-O2", "gcc-O2"), ("clang-O2-fp", "gcc-O2")),
    Scenario("filter", ("clang-O2",), ("clang-O2",), ("clang-O2",), exceptions=2),
    Scenario("topfilter", ("clang-O2", "gcc-O2"), (), (), exceptions=2),
    Scenario("abort", ("clang-O2",), ("clang-O2", "clang-O2-fp"), ("clang-O2",), waits_for_debugger=False),
    Scenario("shutdown", ("clang-O2",), ("clang-O2",), ("clang-O2",), exceptions=0, waits_for_debugger=False),
    Scenario(
        "deadlock",
        ("clang-O2", "gcc-O2"),
        ("clang-O2",),
        ("clang-O2",),
        crashes=0,
        exceptions=0,
        waits_for_debugger=False,
    ),
    Scenario("class", ("clang-O0", "gcc-O2"), ("clang-O2",), ("clang-O2",), program="throw.exe"),
    Scenario("number", ("clang-O2",), ("clang-O0",), ("clang-O2-fp",), program="throw.exe"),
    Scenario("both", ("clang-O2",), ("clang-O2-fp",), ("clang-O0",), program="throw.exe", crashes=2),
    Scenario(
        "generated",
        ("gcc-O2", "clang-O2"),
        ("gcc-O2", "clang-O2", "clang-O2-fp"),
        ("clang-O2",),
        program="rough.exe",
        crashes=6,
        waits=2,
    ),
    Scenario(
        "hooked",
        ("clang-O2",),
        ("clang-O2",),
        ("clang-O2",),
        program="rough.exe",
        crashes=3,
        waits_for_debugger=False,
        waits=2,
    ),
    Scenario(
        "strayed",
        ("gcc-O2", "clang-O2"),
        ("clang-O2",),
        ("clang-O2",),
        program="rough.exe",
        crashes=5,
        waits=1,
    ),
    Scenario("switched", ("clang-O2",), ("clang-O2",), (), program="rough.exe", crashes=2),
    Scenario("cold", ("gcc-O2",), ("gcc-O2",), (), program="rough.exe", crashes=2),
    Scenario(
        "vectored",
        ("clang-O2",),
        ("clang-O2",),
        ("clang-O2",),
        program="rough.exe",
        crashes=2,
        waits_for_debugger=False,
    ),
    Scenario(
        "values",
        ("clang-O0", "clang-O2"),
        ("clang-O0", "clang-O2", "clang-O2-fp"),
        ("clang-O2-fp",),
        program="values.exe",
        crashes=3,
    ),
    Scenario("seh", ("clang-O2",), ("clang-O2",), ("clang-O2",), program="rough.exe", waits_for_debugger=False),
)


def fixtures() -> list[Fixture]:
    """Return the whole set."""
    x64 = {build.label: build for build in X64_BUILDS}
    x86 = {build.label: build for build in X86_BUILDS}
    found = []
    for scenario in SCENARIOS:
        rows = [(x64[label], False) for label in scenario.x64]
        rows += [(x86[label], False) for label in scenario.x86]
        rows += [(x86[label], True) for label in scenario.wow64]
        found += [
            Fixture(
                build, is_wow64, scenario.program, scenario.name,
                scenario.crashes, scenario.exceptions, scenario.waits_for_debugger, scenario.waits,
            )
            for build, is_wow64 in rows
        ]  # fmt: skip
    return found
