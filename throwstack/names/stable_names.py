# SPDX-License-Identifier: Apache-2.0
"""Names of functions that stay the same from build to build, for signatures of crashes.

Symbol tables give one function many names: with stdcall decoration (`_UnhandledExceptionFilter@4`), mangled, with its
parameters, with template arguments, with the numbers that compilers give to lambdas and clones. All of these differ
between two builds of the same source, or between a PDB and the exports. So a stable name has none of these parts.
"""

from __future__ import annotations

import re
from functools import lru_cache

from throwstack.names.demangle import is_decorated, undecorate

_LONGEST = 160
_READ = 1024

_STDCALL = re.compile(r"[_@]?(\w+)@\d+")
_ANONYMOUS = re.compile(
    r"\(anonymous (?:namespace|class)\)|`anonymous[ -]namespace'|\?A0x[0-9a-f]+|\{anonymous\}|`anonymous'"
)
_LAMBDA = re.compile(
    r"<lambda_?[0-9a-f]+>|\{lambda\([^()]{0,200}\)#\d+\}|\$_\d+|'lambda\d*'(?:\([^()]{0,200}\))?|\b__lambda\d+\b"
)
_OPERATOR = re.compile(r"\boperator\s*(?:\(\)|<=>|<<=?|>>=?|->\*?|<=?|>=?)")
_CLONE = re.compile(
    r"(?:\.(?:part|constprop|isra|cold|warm|hot|llvm|lto_priv|localalias|__part|__uniq|\d+))+$"
    r"|(?: \[clone [^\]]{1,40}\])+$|(?: \(\.[\w.]+\))+$"
)
"""What is appended to the name of a clone: `.cold`, `.part.0`, `.llvm.123`, `.12`, ` [clone .cold]`, ` (.cold)`."""
_PART = re.compile(r"(?:\$(?:cold|filt|fin|catch|dtor|part|chunk)(?:\$\d+)?)+$")
"""Parts of a function that Visual C++ places apart from it: exception filters, handlers, code that seldom runs."""
_FUNCLET = re.compile(r"`(.+)'::`\d+'::(?:catch|filt|fin|dtor)\$\d+")
"""The same in the form that a debugger shows: `` `f'::`1'::catch$0 ``."""
_DECORATED_FUNCLET = re.compile(r"\?(?:catch|filt|fin|dtor)\$\d+@\?(?:\d|[A-P]+@)\?(.+?)@?4HA")
_SCOPE = re.compile(r"`([^`']+)'(?=::)|::(?:`\d+'|__l\d+)(?=::)")
"""The function around a local class or lambda, and the number of its block: `` `f'::`2':: ``, `f::__l2::`."""
_DECLARATOR = re.compile(r"\((?:__\w+ ?)?(?:[\w:]+::)?[*&]+ ?(?:const ?)?(?:__\w+ )?(?=[\w~:`<])")
"""What is before the name of a function that returns a pointer to a function: `(*` in `int (*f(int))(char)`."""
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_CRATE = re.compile(r"(?<=C)s[0-9A-Za-z]{1,16}_(?=\d)")
_RUST_NUMBERED = re.compile(
    r"\{\{([\w.]+)\}\}|\{(\w+?)(?:_env)?(?:[:#][\w#]+)?\}"
    r"|\b(closure|impl|async_fn|async_block|async_gen_block|gen_block|gen_fn|coroutine)(?:_env)?\$\d+"
)
"""Closures and implementations, which Rust numbers: `{{closure}}`, `{closure#0}`, `closure$0`, `{impl#3}`, `impl$3`."""
_RUST_IMPL = re.compile(
    r"(?:\{impl#(\d+)\}|\bimpl\$(\d+))(?=::(?:(?:try_)?(?:from|into)(?:_str|_iter)?|as_(?:ref|mut)|(?:un)?drop|clone(?:_from)?"
    r"|eq|ne|lt|le|gt|ge|(?:partial_)?cmp|hash|default|fmt|next(?:_back)?|size_hint|(?:deref|index|borrow)(?:_mut)?"
    r"|(?:add|sub|mul|div|rem|bitand|bitor|bitxor|shl|shr)(?:_assign)?|neg|not|poll|read|write(?:_str)?|flush|source"
    r"|to_(?:string|owned)|call(?:_mut|_once)?|extend|sum|product|(?:de)?serialize)(?!\w))"
)
"""An implementation in which only the number says whose method it is: many types of a module have a `fmt`."""
_RUST_ESCAPES = {"$LT$": "<", "$GT$": ">", "$RF$": "&", "$BP$": "*", "$C$": ",", "$u20$": " ", "$u27$": "'", "..": "::"}
_RUST_ESCAPE = re.compile(r"\$(?:LT|GT|RF|BP|C|u20|u27)\$|\.\.")
_TRAIT = re.compile(r"<?(?:[&*]|mut |const |dyn )*(.+?)(?:<.*)? as .*")
_GO_METHOD = re.compile(r"(?<=\.)\(\*?([\w\[\].,/]+)\)(?=\.)")
_GO_NUMBERED = re.compile(r"\.(func|gowrap|deferwrap)\d+(?:\.\d+)*|\.init\.\d+(?:\.(func)\d+)?|-fm$")
_NET_ARGUMENTS = re.compile(r"(?<=\w)\[(?:[A-Za-z_][\w.,` ]*|\.\.\.)\]")
_NET_NUMBERED = re.compile(r"<(\w*)>([a-z])(?:__([A-Za-z]\w*?)?(?:\|?\d+(?:_\d+)?)?)?(?![\w|])")
"""Names that C# makes for lambdas, iterators and local functions: `<Main>b__0_1`, `<Run>d__5`, `<Run>g__Local|3_0`."""


@lru_cache(maxsize=4096)
def plain_name(symbol: str) -> str:
    """Return the stable name of the function `symbol`, at most 160 characters.

    `_Foo@8` is `Foo`; `void __cdecl a::f<int>(int)` and `?f@...` are `a::f<T>`; `g::<lambda_1f0c>::operator()` is
    `g::lambda::operator()`; `h.part.0`, `h$cold` and `h$catch$0` are `h`; `run::{closure#0}` is `run::closure`.
    """
    symbol = symbol[:_READ]
    decorated = _STDCALL.fullmatch(symbol)
    if decorated and not is_decorated(symbol):
        return decorated[1][:_LONGEST]
    readable = _spelled(_without_parts(undecorate(_without_parts(symbol))))
    readable = _LAMBDA.sub("lambda", _ANONYMOUS.sub("anonymous", readable))
    readable = _without_numbers(_SCOPE.sub(lambda found: found[1] or "", readable))
    return _RUST_HASH.sub("", _last_word(_without_groups(_without_trait(readable))))[:_LONGEST]


def _without_parts(symbol: str) -> str:
    """Return the function of which `symbol` is a part that is placed apart from it, or a clone."""
    funclet = _DECORATED_FUNCLET.fullmatch(symbol) or _FUNCLET.fullmatch(symbol)
    if funclet:
        symbol = funclet[1]
    return _PART.sub("", _CLONE.sub("", symbol))


def _spelled(name: str) -> str:
    """Return a name of Rust without the escapes and hashes of its mangling."""
    if name.startswith(("_R", "__R")):
        return _RUST_CRATE.sub("", name)
    if "$LT$" not in name and "$u20$" not in name:
        return name
    return _RUST_ESCAPE.sub(lambda found: _RUST_ESCAPES[found[0]], name.removeprefix("_"))


def _without_numbers(name: str) -> str:
    """Return `name` without the numbers of closures: those of Rust, Go and C#.

    The number of an implementation stays before a method that many implementations have: `server::impl#3::fmt`.
    """
    name = _RUST_IMPL.sub(lambda found: f"impl#{found[1] or found[2]}", name)
    name = _RUST_NUMBERED.sub(lambda found: found[1] or found[2] or found[3], name)
    name = _GO_NUMBERED.sub(
        lambda found: f".{found[1]}" if found[1] else ".init.func" if found[2] else "", _GO_METHOD.sub(r"\1", name)
    )
    return _NET_NUMBERED.sub(
        lambda found: ".".join(filter(None, (found[1], found[3] or found[2]))),
        _NET_ARGUMENTS.sub("", _without_instances(name)),
    )


def _without_instances(name: str) -> str:
    """Return a name of .NET without the types of a generic instance: `List`1[[System.Int32, mscorlib]].Add`."""
    first, last = name.find("[["), name.rfind("]]")
    return name[:first] + name[last + 2 :] if 0 <= first < last else name


def _without_trait(name: str) -> str:
    """Return `A::f` for `<A as B>::f` and `<A>::f`, a method of Rust, and other names as they are."""
    if not name.startswith("<"):
        return name
    end = _group_end(name, 0)
    if not name.startswith("::", end):
        return name
    kind = _TRAIT.fullmatch(name[1 : end - 1])
    return (kind[1] if kind else name[1 : end - 1]) + name[end:]


def _without_groups(name: str) -> str:
    """Return `name` without parameters and template arguments: `a<b>::c(d) const` becomes `a<T>::c`.

    The parameters of a function that has a function inside are left out, too: `f(int)::lambda::operator()(char)`
    becomes `f::lambda::operator()`. Of a function that returns a pointer to a function, `int (*f(int))(char)`, the
    declarator in the brackets is taken: `f`.
    """
    kept: list[str] = []
    position = 0
    while position < len(name):
        operator = _OPERATOR.match(name, position)
        if operator:
            kept.append(operator[0])
            position = operator.end()
            continue
        character = name[position]
        declarator = _DECLARATOR.match(name, position) if character == "(" and kept else None
        if declarator:
            name, position = name[declarator.end() : _group_end(name, position) - 1], 0
            kept.clear()
        elif character == "(" and kept:
            position = _group_end(name, position)
            if not name.startswith("::", position):
                break
        elif character == "<" and position and name[position - 1] not in ":` ":
            kept.append("<T>")
            position = _group_end(name, position)
        else:
            kept.append(character)
            position += 1
    return "".join(kept).strip()


def _group_end(name: str, start: int) -> int:
    """Return the position after the group that begins with the bracket at `start`, or the end of `name`.

    Operators among template arguments are no brackets: `<B::operator> >` is one group.
    """
    opening = name[start]
    closing = {"<": ">", "(": ")"}[opening]
    depth, position = 0, start
    while position < len(name):
        operator = _OPERATOR.match(name, position) if opening == "<" else None
        if operator:
            position = operator.end()
            continue
        depth += (name[position] == opening) - (name[position] == closing)
        position += 1
        if not depth:
            return position
    return len(name)


def _last_word(name: str) -> str:
    """Return the name in a declaration, without the type before it.

    A name with `operator` or a quotation in it is returned with all that follows, so that `operator new` and
    `` A::`scalar deleting destructor' `` stay whole.
    """
    operator = re.search(r"\boperator\b", name)
    if operator:
        return name[name.rfind(" ", 0, operator.start()) + 1 :]
    first, last = name.find("`"), name.rfind("'")
    if 0 <= first < last:
        return name[name.rfind(" ", 0, first) + 1 : last + 1] + name[last + 1 :].partition(" ")[0]
    return name.rpartition(" ")[2]
