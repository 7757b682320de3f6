# SPDX-License-Identifier: Apache-2.0
"""What is said of managed methods, frames and exceptions: frozen values, and no reader of memory.

All strings are escaped and of limited length.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ManagedMethod:
    """A managed method. `name` is `Namespace.Type.Method`, `parameters` as stack traces print them: `(String x)`.

    `type_name` is the type that has the method, `module` the name of the image that describes it; both are "" for a
    method that was made at run time (`is_dynamic`): it has a name alone. If the name or the parameters cannot be read,
    they are "" and `reason` says why. `token` is the method's row in MethodDef, 0 if it has none.

    `is_hidden` says that the runtime's own stack traces leave the method out. `original` is the method (name and
    parameters) that the compiler made this one from, as the runtime prints it: of `<Load>d__1.MoveNext`, the async
    method `Load`.
    """

    name: str
    parameters: str = ""
    type_name: str = ""
    module: str = ""
    is_dynamic: bool = False
    reason: str = ""
    token: int = 0
    is_hidden: bool = False
    original: str = ""


@dataclass(frozen=True, slots=True)
class ManagedFrame:
    """A frame of a managed exception's stack.

    `ip` is the return address into the method, or an address in the call before it (`is_before_return`); it is 0 for
    the frame of a P/Invoke. `sp` is the stack pointer that an unwinder has at the frame. `method_desc` is the address
    of the MethodDesc. `is_end_of_earlier_stack` marks the outermost frame of a stack that was recorded before the
    exception was thrown anew.
    """

    ip: int
    sp: int
    method_desc: int
    method: ManagedMethod
    is_end_of_earlier_stack: bool = False
    is_before_return: bool = False


@dataclass(frozen=True, slots=True)
class ManagedException:
    """A managed exception object.

    `type_name` is the class, and `bases` are its base classes up to System.Object; a name that cannot be read is "".
    `message` is what the property Message returns in English, as that version of the runtime composes it; None if it
    cannot be read. `inner` has the inner exception, or all of an AggregateException. `stack` is the stack that the
    exception recorded, innermost frame first. `remote_stack` is the text of a stack that was recorded elsewhere, None
    if there is none. `reasons` say what of the object is missing, and why.
    """

    type_name: str
    bases: tuple[str, ...]
    message: str | None
    hresult: int | None
    address: int
    method_table: int
    inner: tuple[ManagedException, ...] = ()
    stack: tuple[ManagedFrame, ...] = ()
    remote_stack: str | None = None
    reasons: tuple[str, ...] = field(default=())
