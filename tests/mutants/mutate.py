# SPDX-License-Identifier: Apache-2.0
"""Finds the changes that can be made to a module: figures, conditions, comparisons, and the order and members of data.

- A figure becomes one more or one less.
- A condition is negated, and replaced by True and by False.
- A comparison is swapped with its neighbour: `<` and `<=`, `==` and `!=`, `in` and `not in`, `is` and `is not`.
- `and` is swapped with `or`.
- Two neighbours of an Enum swap their places, because the order of an Enum can be a ranking.
- A member is left out of a set, a tuple or a dict at the top of a module: judgement that was moved into data.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

_SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_CONDITIONAL = (ast.If, ast.While, ast.IfExp)


@dataclass(frozen=True)
class Mutant:
    """A change to a module: the line, and what is changed in words. `mutated` makes it.

    `is_data` says that the change is in data that is made when the module is imported, so that any test may notice.
    `node` and `variant` say which node of the module's tree is changed, and which of its changes is meant.
    """

    line: int
    change: str
    is_data: bool
    node: int
    variant: int


def mutants(text: str) -> Iterator[Mutant]:
    """Yield the mutants of a module with the source `text`, from its top down."""
    tree = ast.parse(text)
    in_functions = {id(inner) for node in ast.walk(tree) if _is_function(node) for inner in ast.walk(node)}
    in_types = {
        id(node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript)
    }  # the (int, str) of a type
    statements = _statements(tree)
    for index, node in enumerate(ast.walk(tree)):
        is_top = id(node) not in in_functions
        if isinstance(node, ast.Tuple) and id(node) in in_types:
            continue
        where = f" in {statements[id(node)]}" if isinstance(node, ast.Constant) else ""
        for variant, (change, _) in enumerate(_changes(node, is_top=is_top)):
            place = node.target if isinstance(node, ast.comprehension) else node
            yield Mutant(getattr(place, "lineno", 0), f"{change}: {_source(node)}{where}", is_top, index, variant)


def _statements(tree: ast.AST) -> dict[int, str]:
    """Return for each node the first line of the innermost statement that has it: figures alone are all alike."""
    found: dict[int, str] = {}
    for statement in ast.walk(tree):  # from the outermost inwards
        if isinstance(statement, ast.stmt):
            line = ast.unparse(statement).split("\n")[0]
            found.update((id(inner), line) for inner in ast.walk(statement))
    return found


def mutated(text: str, mutant: Mutant) -> str:
    """Return the source `text` of a module with one of its mutants made."""
    return ast.unparse(changed_tree(text, mutant))


def changed_tree(text: str, mutant: Mutant) -> ast.Module:
    """Return the tree of a module with the source `text` with one of its mutants made, and with its old lines."""
    tree = parse(text)
    node = next(node for index, node in enumerate(ast.walk(tree)) if index == mutant.node)
    changes = list(_changes(node, is_top=mutant.is_data))
    changes[mutant.variant][1](node)
    return ast.fix_missing_locations(tree)


def parse(text: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(text)


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _source(node: ast.AST) -> str:
    text = ast.unparse(node.test if isinstance(node, _CONDITIONAL) else node).split("\n")[0]
    return text if len(text) <= 100 else f"{text[:97]}..."


def _changes(node: ast.AST, *, is_top: bool) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        for amount in (1, -1):
            yield f"{amount:+}", lambda other, amount=amount: setattr(other, "value", other.value + amount)  # type: ignore[misc]
    elif isinstance(node, _CONDITIONAL):
        yield from _of_condition("test")
    elif isinstance(node, ast.comprehension):
        for index in range(len(node.ifs)):
            yield "never left out", lambda other, index=index: other.ifs.pop(index)  # type: ignore[attr-defined, misc]
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            yield f"{type(operator).__name__} swapped", _swap(index, _SWAPPED[type(operator)])
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield "and/or swapped", lambda other: setattr(other, "op", other_op())
    else:
        yield from _of_data(node, is_top=is_top)


def _of_data(node: ast.AST, *, is_top: bool) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.ClassDef):
        yield from _of_enum(node)
    elif is_top and isinstance(node, ast.Dict):
        yield from ((f"without member {index}", _leave_out(index)) for index in range(len(node.keys)))
    elif is_top and isinstance(node, ast.Set | ast.Tuple) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        yield from ((f"without member {index}", _leave_out(index)) for index in range(len(node.elts)))


def _of_condition(name: str) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    yield "negated", lambda other: setattr(other, name, ast.UnaryOp(ast.Not(), getattr(other, name)))
    for value in (True, False):
        yield str(value), lambda other, value=value: setattr(other, name, ast.Constant(value))  # type: ignore[misc]


def _swap(index: int, operator: type[ast.cmpop]) -> Callable[[ast.AST], None]:
    def alter(other: ast.AST) -> None:
        other.ops[index] = operator()  # type: ignore[attr-defined]

    return alter


def _leave_out(index: int) -> Callable[[ast.AST], None]:
    def alter(other: ast.AST) -> None:
        if isinstance(other, ast.Dict):
            del other.keys[index], other.values[index]
        else:
            del other.elts[index]  # type: ignore[attr-defined]
            if isinstance(other, ast.Set) and not other.elts:
                other.elts.append(ast.Starred(ast.Tuple([], ast.Load()), ast.Load()))

    return alter


def _of_enum(node: ast.ClassDef) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if not any(isinstance(base, ast.Name) and base.id == "Enum" for base in node.bases):
        return
    members = [index for index, part in enumerate(node.body) if isinstance(part, ast.Assign)]
    for first, second in pairwise(members):
        names = [node.body[at].targets[0].id for at in (first, second)]  # type: ignore[attr-defined]

        def alter(other: ast.AST, first: int = first, second: int = second) -> None:
            body = other.body  # type: ignore[attr-defined]
            body[first], body[second] = body[second], body[first]

        yield f"{names[0]} and {names[1]} swapped in", alter
