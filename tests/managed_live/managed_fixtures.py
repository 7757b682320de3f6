# SPDX-License-Identifier: Apache-2.0
"""The set of managed crashes: every scenario of programs/Scenarios.cs on every runtime, and what must come of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.managed_live.console_text import OVERFLOW
from tests.managed_live.runtimes import RUNTIMES, Runtime


@dataclass(frozen=True)
class Scenario:
    """A scenario. `types` are those of the exception and its inner ones, outermost first, as the source throws them.

    `is_quick`: `make test-live` runs it too.
    """

    name: str
    types: tuple[str, ...]
    is_quick: bool = False


ORDER = "Shop.Orders.OrderException"
APPLICATION = "System.ApplicationException"
NO_KEY = "System.Collections.Generic.KeyNotFoundException"
INVALID = "System.InvalidOperationException"
HRESULTS = {
    ORDER: 0x80131601,  # set by the program: it is InvalidFilterCriteriaException's
    APPLICATION: 0x80131600,
    INVALID: 0x80131509,
    NO_KEY: 0x80131577,
    OVERFLOW: 0x800703E9,
    "System.AggregateException": 0x80131500,
    "System.ArgumentOutOfRangeException": 0x80131502,
    "System.ArithmeticException": 0x80070216,
    "System.DivideByZeroException": 0x80020012,
    "System.Exception": 0x80131500,
    "System.FormatException": 0x80131537,
    "System.NotSupportedException": 0x80131515,
    "System.NullReferenceException": 0x80004003,
    "System.OverflowException": 0x80131516,
    "System.RankException": 0x80131517,
    "System.TimeoutException": 0x80131505,
    "System.TypeInitializationException": 0x80131534,
}
"""The HRESULT of each type, which the runtime does not print: from corerror.h and winerror.h."""
SCENARIOS = (
    Scenario("application", (ORDER,)),
    Scenario("inner", (ORDER, ORDER, ORDER, "System.FormatException"), is_quick=True),
    Scenario("catch", ("System.TimeoutException",)),
    Scenario("generics", (INVALID,)),
    Scenario("delegate", ("System.DivideByZeroException",)),
    Scenario("task", ("System.AggregateException", INVALID, NO_KEY, INVALID)),
    Scenario("static", ("System.TypeInitializationException", "System.FormatException")),
    Scenario("null", ("System.NullReferenceException",), is_quick=True),
    Scenario("overflow", (OVERFLOW,)),
    Scenario("callback", ("System.ArithmeticException",)),
    Scenario("dynamic", ("System.OverflowException",)),
    Scenario("finalizer", (INVALID,)),
    Scenario("pool", ("System.RankException",)),
    Scenario("argument", ("System.ArgumentOutOfRangeException",)),
    Scenario("rethrow", (APPLICATION,)),
    Scenario("dispatchinfo", (APPLICATION,)),
    Scenario("async", (APPLICATION,)),
    Scenario("thread", (ORDER,)),
    Scenario("signatures", ("System.NotSupportedException",)),
    Scenario("nomessage", (ORDER, "System.Exception")),
)
DECOYS = ("decoy handled", "decoy in-catch", "decoy in-nested-catch", "decoy in-finally", "decoy waits")
"""The threads that every program has, and that must not be reported (programs/Decoys.cs)."""


@dataclass(frozen=True)
class ManagedFixture:
    """One crashed process: a scenario on a runtime."""

    runtime: Runtime
    scenario: Scenario

    @property
    def name(self) -> str:
        """Return the name of its directory."""
        return f"{self.runtime.label}-{self.scenario.name}"


def managed_fixtures(only: Sequence[str] = (), *, quick: bool = False) -> list[ManagedFixture]:
    """Return the set, or those whose name contains one of `only`; with `quick` two scenarios a runtime."""
    every = [
        ManagedFixture(runtime, scenario)
        for runtime in RUNTIMES
        for scenario in SCENARIOS
        if scenario.is_quick or not quick
    ]
    return [fixture for fixture in every if not only or any(text in fixture.name for text in only)]


def scenario_named(name: str) -> Scenario:
    """Return the scenario with a name. Raises StopIteration."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)
