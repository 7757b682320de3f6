# SPDX-License-Identifier: Apache-2.0
"""Where a managed exception was thrown, and what is said where the runtime raised it twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.support.thrown_stacks import thrown
from throwstack.core.sides import Side
from throwstack.managed.managed_exception import ManagedException, ManagedFrame, ManagedMethod
from throwstack.names.symbols import SymbolKind
from throwstack.report.crash_report import CrashReport, ProcessSummary
from throwstack.report.make_crash import CrashSite, make_crash

_MANAGED = frozenset({"shop", "System_Private_CoreLib", "<dynamic>"})
_NULL = "System.NullReferenceException"
NATIVE_FAULT = "[0xC0000005 0 8] codec!Decode < <dynamic>!IL_STUB_PInvoke() < shop!Shop.Orders.Read()"
_RUNTIMES = frozenset({"shop.exe", "coreclr"})


class _Runtime:
    version, is_experimental = ".NET 8.0.4", False


class Code:
    """The managed code of a process whose thread has thrown one object."""

    runtime = _Runtime()

    def __init__(
        self, found: ManagedException | None, others: tuple[ManagedException, ...], in_runtime: frozenset[int]
    ) -> None:
        self.found, self.others, self.in_runtime = found, others, in_runtime

    def last_thrown(self, _tid: int) -> tuple[ManagedException | None, str]:
        return self.found, "the heap is lost" if self.found is None else ""

    def exceptions_in_flight(self, _tid: int) -> tuple[ManagedException, ...]:
        return () if self.found is None else (self.found, *self.others)

    def exceptions_on_stack(self, _low: int, _high: int) -> tuple[ManagedException, ...]:
        return ()

    def what_is_missing(self, tid: int, addresses: Sequence[int]) -> tuple[str, ...]:
        return (f"names of thread {tid} may be missing: {len(addresses)} frames",) if self.found is None else ()

    def is_in_runtime(self, address: int) -> bool:
        return address in self.in_runtime


def crash(
    text: str,
    *recorded: str,
    is_lost: bool = False,
    inner: tuple[ManagedException, ...] = (),
    others: tuple[ManagedException, ...] = (),
    class_name: str = "Shop.OrderException",
) -> CrashReport:
    """Report on the stack `text`, whose object has recorded the managed frames and, before them, `recorded`.

    `inner` are its inner exceptions, and `others` are further objects in flight on the thread. `class_name` is
    its class.
    """
    stuck, target = thrown(text)
    names = target.symbols.given
    for address, name in names.items():
        is_export = name.module == "KERNELBASE"
        kind = SymbolKind.CLR if name.module in _MANAGED else SymbolKind.EXPORT if is_export else name.kind
        names[address] = replace(name, kind=kind)
    passed = [
        ManagedFrame(
            frame.ip, frame.sp, 0, ManagedMethod(names[frame.ip].symbol, module=names[frame.ip].module + ".dll")
        )
        for frame in stuck.throwing_walks[0].frames
        if names[frame.ip].kind is SymbolKind.CLR
    ]
    in_runtime = frozenset(address for address, name in names.items() if name.module in _RUNTIMES)
    earlier = [ManagedFrame(0, 0, 0, ManagedMethod(name, module="shop.dll")) for name in recorded]
    found = ManagedException(class_name, (), "no", 0x80131601, 0x400, 0, inner, (*earlier, *passed))
    site = CrashSite(
        target=target,
        process=ProcessSummary(4, "shop.exe"),
        tid=8,
        side=Side.NATIVE,
        arch="x64",
        region_of=lambda _: "",
        substitutes=frozenset(),
        blocked_since=lambda: None,
        managed=Code(None if is_lost else found, others, in_runtime),  # type: ignore[arg-type]
    )
    return make_crash(stuck, site)


def test_an_exception_that_was_thrown_anew_is_named_after_where_it_was_thrown_first() -> None:
    found = crash(
        "[0xE0434352 80131601] KERNELBASE!RaiseException < shop.exe!Brotli"
        " < System_Private_CoreLib!System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw()"
        " < shop!Shop.Program.Main()",
        "Shop.Orders.Place(String name)",
    )
    assert found.thrown_at == "shop!Shop.Orders.Place(String name)"
    assert found.signature is not None
    assert found.signature.text == "shop!Shop.Orders.Place"
    assert found.exception is not None
    assert [frame.function for frame in found.exception.logical_stack] == [
        "Shop.Orders.Place(String name)",
        "System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw()",
        "Shop.Program.Main()",
    ]
    assert found.exception.object_address == 0x400


def test_without_the_object_the_innermost_managed_frame_that_is_no_helper_names_it() -> None:
    found = crash(
        "[0xE0434352 80131601] KERNELBASE!RaiseException < shop.exe!Brotli"
        " < System_Private_CoreLib!System.ThrowHelper.Throw() < shop!Shop.Program.Main()",
        is_lost=True,
    )
    assert found.thrown_at == "shop!Shop.Program.Main()+0x20"
    assert found.exception is not None
    assert found.exception.title.endswith("type not readable")
    assert "the exception object: the heap is lost" in found.exception.details
    assert "names of thread 8 may be missing: 8 frames" in found.notes


def test_a_fault_that_the_runtime_raised_is_named_after_managed_code() -> None:
    found = crash(
        "[0xC0000005 0 8] KERNELBASE!RaiseException < shop.exe!Brotli < shop!Shop.Orders.Length()", class_name=_NULL
    )
    assert found.thrown_at == "shop!Shop.Orders.Length()+0x20"
    assert found.exception is not None
    assert found.exception.title.startswith(f'{_NULL} "no", ACCESS_VIOLATION reading')


def test_a_fault_in_native_code_that_managed_code_called_is_the_native_codes() -> None:
    found = crash(NATIVE_FAULT, class_name="System.AccessViolationException")
    assert found.thrown_at == "codec!Decode+0x20"
    assert found.signature is not None
    assert found.signature.text == "codec!Decode"
    assert found.exception is not None
    assert found.exception.title == "ACCESS_VIOLATION reading 0x0000000000000008"
    assert found.exception.type == ""
    assert 'managed code sees it as System.AccessViolationException "no"' in found.exception.details


def test_an_object_of_an_exception_that_was_handled_at_the_same_call_is_not_that_of_a_fault() -> None:
    """A loop calls native code. In its first round a callback threw, which was caught. In the second it faults."""
    found = crash(NATIVE_FAULT, class_name="System.InvalidOperationException")
    assert found.exception is not None
    assert found.exception.title == "ACCESS_VIOLATION reading 0x0000000000000008"
    assert found.exception.object_address is None
    assert not any("managed code sees" in detail for detail in found.exception.details)


def test_an_exception_that_the_runtime_raised_twice_is_said_to_be_the_same() -> None:
    found = crash(
        "[0xC0000005 0 8] KERNELBASE!RaiseException < coreclr!Handler < ntdll!KiUserExceptionDispatch"
        " < [0xC0000005 0 8] shop!Shop.Orders.Length()",
        class_name=_NULL,
    )
    assert [item.object_address for item in found.exceptions] == [0x400, 0x400]
    assert found.notes[-1].startswith("the runtime raised the same exception before, at 0x400300")


SECOND = "[0xE0434352 80131601] KERNELBASE!RaiseException < coreclr!Throw < shop!Shop.Program.Main()"
FIRST = ManagedException(
    "System.ApplicationException",
    (),
    "first",
    0x80131600,
    0x500,
    0,
    (),
    (ManagedFrame(0, 0, 0, ManagedMethod("Shop.Orders.Read", "()", module="shop.dll")),),
)


def test_an_exception_in_flight_that_windows_knows_nothing_of_is_a_note() -> None:
    (note,) = crash(SECOND, others=(FIRST,)).notes
    assert note == (
        'raised while System.ApplicationException "first", HRESULT 0x80131600 COR_E_APPLICATION was being handled, '
        "thrown at shop!Shop.Orders.Read() (object 0x500)"
    )


def test_an_object_that_has_recorded_no_frame_is_not_being_handled() -> None:
    """The runtime puts its own ExecutionEngineException there when it ends the process."""
    assert crash(SECOND, others=(replace(FIRST, stack=()),)).notes == ()


def test_an_inner_exception_that_is_still_in_flight_is_said_once() -> None:
    found = crash(SECOND, inner=(FIRST,), others=(FIRST,))
    assert found.notes == ()
    assert found.exception is not None
    assert [item.address for item in found.exception.inner] == [0x500]
