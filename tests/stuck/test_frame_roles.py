# SPDX-License-Identifier: Apache-2.0
"""The rules of each family of runtimes, on the stacks that the family's own file gives as examples."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from throwstack.names.demangle import undecorate
from throwstack.names.symbols import Name, SymbolKind
from throwstack.stuck.frame_roles import Role, families, roles_of, rules_of
from throwstack.stuck.signature import signature, waiting_signature

_EXAMPLE = re.compile(r"^# (example|waiting): (.*(?:\n#     .*)*)", re.MULTILINE)


def examples() -> Iterator[tuple[str, str, str]]:
    """Yield (kind, stack, signature) of each example of each family."""
    for family, text in families():
        for kind, example in _EXAMPLE.findall(text):
            stack, _, wanted = " ".join(example.replace("\n#", " ").split()).rpartition(" -> ")
            yield pytest.param(kind, stack, wanted, id=f"{family}: {wanted}")


def stack_of(text: str) -> list[Name]:
    names = []
    for index, label in enumerate(text.split(" < "), 1):
        module, _, symbol = label.partition("!")
        names.append(Name(0x1000 * index, module, undecorate(symbol), 0x20, SymbolKind.PDB))
    return names


@pytest.mark.parametrize(("kind", "stack", "wanted"), list(examples()))
def test_the_examples_of_each_family_get_their_signatures(kind: str, stack: str, wanted: str):
    made = signature(stack_of(stack)) if kind == "example" else waiting_signature(stack_of(stack))
    assert made.text == wanted


def shortest(pattern: str) -> str:
    """Return a short text that `pattern` matches: of alternatives the first, and nothing that may be absent."""
    text = re.sub(r"\(\?![^()]*\)", "", pattern.replace(r"\w", "x").replace(r"\d", "1"))
    text = re.sub(r"\\(.)", lambda found: chr(0xE000 + ord(found[1])), text)  # escaped characters are put back below
    text = re.sub(r"\[\^?\.?(.)[^]]*\]", r"\1", text)
    text = re.sub(r"([^()|])\{(\d).*?\}", lambda found: found[1] * int(found[2]), text)
    text = re.sub(r"[^()|][*?]", "", text.replace("(?:", "("))
    while (inner := re.search(r"\(([^()]*)\)([*?]?)", text)) is not None:
        text = text[: inner.start()] + ("" if inner[2] else inner[1].split("|")[0]) + text[inner.end() :]
    text = text.split("|")[0].replace("+", "").replace(".", "x")
    return "".join(chr(ord(letter) - 0xE000) if letter >= "\ue000" else letter for letter in text)


@pytest.mark.parametrize(("family", "text"), list(families()))
def test_each_rule_gives_its_roles_to_a_name_that_its_pattern_matches(family: str, text: str):
    for roles, pattern in rules_of(text):
        matched = shortest(pattern)
        assert re.fullmatch(pattern, matched), f"{pattern} does not match {matched}"
        module, _, name = matched.rpartition("!")
        assert roles_of(module or "app", name) >= roles, f"{family}: {pattern} matches {matched}"


@pytest.mark.parametrize(("family", "text"), list(families()))
def test_each_family_has_an_example_and_rules_that_compile(family: str, text: str):
    assert _EXAMPLE.search(text), family
    for roles, pattern in rules_of(text):
        assert roles
        re.compile(pattern)


def test_a_function_may_have_several_roles_and_most_have_none():
    assert roles_of("ucrtbase", "abort") >= {Role.BEGINS, Role.REPORTS, Role.WAITS}
    assert roles_of("app", "Parser::Read") == frozenset()
    assert Role.HELPS in roles_of("ntdll", "")
    assert roles_of("", "RaiseException") == {Role.CARRIES}


@pytest.mark.parametrize(
    ("symbol", "roles"),
    [
        ("std::sys::backtrace::__rust_end_short_backtrace", {Role.REPORTS}),
        ("std::panicking::rust_panic_without_hook::inner", {Role.BEGINS, Role.REPORTS}),
        ("std::panicking::set_hook", {Role.REPORTS}),
        ("std::sys::backtrace::__rust_begin_short_backtrace", {Role.STARTS}),
        ("std::alloc::_::__rg_oom", {Role.BEGINS, Role.REPORTS}),
        ("__rg_oom", {Role.BEGINS, Role.REPORTS}),
    ],
)
def test_functions_of_rust_have_their_roles_in_a_program_of_any_name(symbol: str, roles: set[Role]):
    """Two of these rules have a look-ahead, `(?!`, whose mark names no module."""
    assert roles_of("app", symbol) - {Role.HELPS} == roles
