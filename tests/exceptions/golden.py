# SPDX-License-Identifier: Apache-2.0
"""Every kind of exception, laid out in memory, with the line a user reads: rows of docs/exceptions.md.

The layouts are those of the headers that each module of `throwstack.exceptions` names; the texts are what the issue of
the exception asks for. Codes and messages of the examples are from [MS-ERREF].
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.exceptions.layout import BASE, Layout, Ptr, cpp_record, record, throw
from throwstack.core.exception_record import ExceptionRecord
from throwstack.core.registers import Arch

X86, X64 = Arch.X86, Arch.X64


@dataclass(frozen=True)
class Golden:
    """A case: what it shows, its architecture, how memory is laid out and what is raised, and the title."""

    shows: str
    arch: Arch
    build: Callable[[Layout], ExceptionRecord]
    title: str


def _raise(code: int, *parameters: int) -> Callable[[Layout], ExceptionRecord]:
    return lambda _layout: record(code, *parameters)


def _com_error(layout: Layout) -> ExceptionRecord:
    padding = b"" if layout.arch is X86 else b"\0" * 4
    layout.place("object", Ptr("", BASE), 0x80004003, padding, Ptr("", 0), Ptr("", 0))
    throw(layout, (".?AV_com_error@@", 16 if layout.arch is X86 else 32))
    return cpp_record(layout)


def _runtime_error(layout: Layout) -> ExceptionRecord:
    layout.place("text", b"disk \x1b[31mfull\0")
    layout.place("object", Ptr("", BASE), Ptr("text"), b"\1\0\0\0")
    throw(layout, (".?AVruntime_error@std@@", 12), (".?AVexception@std@@", 12))
    return cpp_record(layout)


def _old_runtime_error(layout: Layout) -> ExceptionRecord:
    string = struct.pack("<I16sII", 0, b"no such table", 13, 15)
    layout.place("object", Ptr("", BASE), Ptr("", 0), b"\0\0\0\0", string)
    throw(layout, (".?AVruntime_error@std@@", 40), (".?AVexception@std@@", 12))
    return cpp_record(layout)


def _derived(layout: Layout) -> ExceptionRecord:
    layout.place("text", b"line 7\0")
    layout.place("object", Ptr("", 1), Ptr("", 2), Ptr("", BASE), Ptr("text"), b"\1" + b"\0" * 7)
    throw(layout, (".?AVParseError@app@@", 48), (".?AVexception@std@@", 24), offset=16)
    return cpp_record(layout)


def _virtual_base(layout: Layout) -> ExceptionRecord:
    layout.place("text", b"lost\0")
    layout.place("base table", 0, 24)
    layout.place("object", Ptr("base table"), b"\0" * 16, Ptr("", BASE), Ptr("text"), b"\1" + b"\0" * 7)
    throw(layout, (".?AVLost@@", 48), (".?AVexception@std@@", 24), virtual={1: (0, 4)})
    return cpp_record(layout)


def _new_exception(layout: Layout) -> ExceptionRecord:
    layout.place("text", b"no\0")
    layout.place("target", Ptr("", BASE), Ptr("text"), b"\0\0\0\0")
    layout.place("object", Ptr("target"))
    throw(layout, (".PAVruntime_error@std@@", 4), (".PAVexception@std@@", 4), (".PAX", 4))
    return cpp_record(layout)


def _thrown(name: str, size: int, value: bytes) -> Callable[[Layout], ExceptionRecord]:
    def build(layout: Layout) -> ExceptionRecord:
        layout.place("object", value)
        throw(layout, (name, size))
        return cpp_record(layout)

    return build


def _string(name: str, text: bytes) -> Callable[[Layout], ExceptionRecord]:
    def build(layout: Layout) -> ExceptionRecord:
        layout.place("text", text)
        layout.place("object", Ptr("text"))
        throw(layout, (name, layout.arch.pointer_size))
        return cpp_record(layout)

    return build


def _std_string(layout: Layout) -> ExceptionRecord:
    layout.place("text", b"a message that does not fit\0")
    layout.place("object", Ptr("text"), b"\0" * 8, struct.pack("<QQ", 27, 31))
    throw(layout, (".?AV?$basic_string@DU?$char_traits@D@std@@V?$allocator@D@2@@std@@", 32))
    return cpp_record(layout)


def _rethrow(_layout: Layout) -> ExceptionRecord:
    return record(0xE06D7363, 0x19930520, 0, 0)


def _rust(layout: Layout) -> ExceptionRecord:
    layout.place("object", b"\0" * 16)
    throw(layout, ("rust_panic", 16))
    return cpp_record(layout)


def _delphi(layout: Layout) -> ExceptionRecord:
    layout.place("message", struct.pack("<iI", -1, 7), b"No disk\0")
    layout.place("class name", b"\x0bEInOutError")
    layout.place("class", Ptr("vmt"), b"\0" * 28, Ptr("class name"), b"\0" * 40)
    layout.labels["vmt"] = layout.labels["class"] + 76
    layout.place("object", Ptr("vmt"), Ptr("message", 8))
    return record(0x0EEDFADE, 0x401000, layout.labels["object"])


def _delphi_x64(layout: Layout) -> ExceptionRecord:
    layout.place("message", struct.pack("<HHiI", 1200, 2, -1, 5), "Datei".encode("utf-16-le") + b"\0\0")
    layout.place("class name", b"\x09Exception")
    layout.place("class", Ptr("vmt"), b"\0" * 56, Ptr("class name"), b"\0" * 128)
    layout.labels["vmt"] = layout.labels["class"] + 200
    layout.place("object", Ptr("vmt"), Ptr("message", 12))
    return record(0x0EEDFADE, 0x401000, layout.labels["object"])


def _gcc(layout: Layout) -> ExceptionRecord:
    layout.place("text", b"basic_string::at\0")
    layout.place("name", b"St12out_of_range\0")
    layout.place("type_info", Ptr("", BASE), Ptr("name"))
    layout.place("exception", Ptr("type_info"), b"\0" * 72, b"\0++CCUNG", b"\0" * 56, Ptr("", BASE), Ptr("text"))
    return record(0x20474343, layout.labels["exception"] + 80)


def _gcc_rust(layout: Layout) -> ExceptionRecord:
    return record(0x20474343, layout.place("exception", b"MOZ\0RUST"))


def _delay_load(layout: Layout) -> ExceptionRecord:
    layout.place("dll", b"codec.dll\0")
    layout.place("function", b"OpenStream\0")
    layout.place("info", 36, 0, 0, Ptr("dll"), 1, Ptr("function"))
    return record(0xC06D007F, layout.labels["info"])


def _thread_name(layout: Layout) -> ExceptionRecord:
    return record(0x406D1388, 0x1000, layout.place("name", b"worker 3\0"), 0xFFFFFFFF, 0)


def _debug_print(layout: Layout) -> ExceptionRecord:
    return record(0x40010006, 6, layout.place("text", b"hello\0"))


def _stowed(layout: Layout) -> ExceptionRecord:
    layout.place("stowed", 40, b"20ES", 0x80010108)
    layout.place("array", Ptr("stowed"))
    return record(0xC000027B, layout.labels["array"], 1)


_COM = "HRESULT 0x80004003 E_POINTER (Invalid pointer)"

GOLDEN = (
    Golden("access violation", X86, _raise(0xC0000005, 0, 0x10), "ACCESS_VIOLATION reading 0x00000010"),
    Golden("… writing", X64, _raise(0xC0000005, 1, 0x7FF0), "ACCESS_VIOLATION writing 0x0000000000007ff0"),
    Golden("… executing", X86, _raise(0xC0000005, 8, 0x41414141), "ACCESS_VIOLATION executing 0x41414141"),
    Golden(
        "in-page error",
        X86,
        _raise(0xC0000006, 0, 0x10002000, 0xC000009A),
        "IN_PAGE_ERROR reading 0x10002000, 0xC000009A STATUS_INSUFFICIENT_RESOURCES"
        " (Insufficient system resources exist to complete the API)",
    ),
    Golden("stack overflow", X86, _raise(0xC00000FD, 1, 0x32FFC), "STACK_OVERFLOW writing 0x00032ffc"),
    Golden("guard page", X86, _raise(0x80000001, 0, 0x32000), "GUARD_PAGE_VIOLATION reading 0x00032000"),
    Golden("fail-fast", X64, _raise(0xC0000409, 7), "fail-fast 7 FAST_FAIL_FATAL_APP_EXIT"),
    Golden("stack cookie, before Windows 8", X86, _raise(0xC0000409), "STACK_BUFFER_OVERRUN"),
    Golden(
        "any other NTSTATUS",
        X64,
        _raise(0xC0000374, 0x77FF0000),
        "0xC0000374 STATUS_HEAP_CORRUPTION (A heap has been corrupted)",
    ),
    Golden("`_com_error`", X86, _com_error, f"C++ _com_error, {_COM}"),
    Golden("… on x64", X64, _com_error, f"C++ _com_error, {_COM}"),
    Golden(
        "`std::exception` and what is derived from it",
        X86,
        _runtime_error,
        r'C++ std::runtime_error "disk \x1b[31mfull"',
    ),
    Golden("… of Visual C++ 2005", X86, _old_runtime_error, 'C++ std::runtime_error "no such table"'),
    Golden("… not as first base", X64, _derived, 'C++ app::ParseError "line 7"'),
    Golden("… as virtual base", X64, _virtual_base, 'C++ Lost "lost"'),
    Golden("… by pointer", X86, _new_exception, 'C++ std::runtime_error * 0x10001010 "no"'),
    Golden(
        "ATL",
        X86,
        _thrown(".?AVCAtlException@ATL@@", 4, struct.pack("<I", 0x80070057)),
        "C++ ATL::CAtlException, HRESULT 0x80070057 E_INVALIDARG (The parameter is incorrect)",
    ),
    Golden(
        "MFC", X86, _thrown(".PAVCMemoryException@@", 4, struct.pack("<I", 0x3E1000)), "C++ CMemoryException * 0x3e1000"
    ),
    Golden("a number", X86, _thrown(".H", 4, struct.pack("<i", 42)), "C++ int 42 (0x2a)"),
    Golden(
        "an HRESULT",
        X86,
        _thrown(".J", 4, struct.pack("<I", 0x80004005)),
        "C++ long, HRESULT 0x80004005 E_FAIL (Unspecified error)",
    ),
    Golden("an enumeration", X64, _thrown(".?AW4Failure@app@@", 4, struct.pack("<i", 3)), "C++ app::Failure 3"),
    Golden("a string", X64, _string(".PEBD", b"out of \xc3\xa4pfel\0"), 'C++ char const * "out of äpfel"'),
    Golden(
        "a wide string", X86, _string(".PB_W", "größe".encode("utf-16-le") + b"\0\0"), 'C++ wchar_t const * "größe"'
    ),
    Golden(
        "`std::string`",
        X64,
        _std_string,
        'C++ std::string "a message that does not fit"',
    ),
    Golden("`throw;`", X86, _rethrow, "C++ rethrow"),
    Golden("Rust (MSVC)", X64, _rust, "Rust panic"),
    Golden(
        "CLR 4 and .NET",
        X64,
        _raise(0xE0434352, 0x80131509, 0, 0, 0, BASE),
        "CLR exception, HRESULT 0x80131509 COR_E_INVALIDOPERATION, type not readable",
    ),
    Golden(
        "CLR 1 to 3.5",
        X86,
        _raise(0xE0434F4D, 0x80004003),
        f"CLR exception, {_COM}, type not readable",
    ),
    Golden("Delphi", X86, _delphi, 'Delphi EInOutError "No disk"'),
    Golden("Delphi, 64-bit", X64, _delphi_x64, 'Delphi Exception "Datei"'),
    Golden("GCC", X64, _gcc, 'C++ std::out_of_range "basic_string::at" (GCC)'),
    Golden("Rust (GNU)", X64, _gcc_rust, "Rust panic"),
    Golden("delayed import", X86, _delay_load, "delay-loaded function not found: codec.dll!OpenStream"),
    Golden(
        "WinRT",
        X64,
        _stowed,
        "WinRT stowed exception, HRESULT 0x80010108 RPC_E_DISCONNECTED"
        " (The object invoked has disconnected from its clients)",
    ),
    Golden(
        "Go (`GOTRACEBACK=wer`)",
        X64,
        _raise(2),
        "0x00000002 ERROR_FILE_NOT_FOUND (The system cannot find the file specified) or a fatal error of a Go program",
    ),
    Golden("RPC", X86, _raise(0x6BA), "0x000006BA RPC_S_SERVER_UNAVAILABLE (The RPC server is unavailable)"),
    Golden(
        "a program's own code",
        X86,
        _raise(0xE0001234, 1, 0xABC),
        "0xE0001234 (defined by the application), parameters 0x1 0xabc",
    ),
    Golden("thread name (not a crash)", X86, _thread_name, 'thread name "worker 3" told to a debugger'),
    Golden("debug message (not a crash)", X86, _debug_print, 'debug message "hello"'),
)
