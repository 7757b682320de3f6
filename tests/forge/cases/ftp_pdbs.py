# SPDX-License-Identifier: Apache-2.0
"""The PDBs of `ftp-2003`: sources, signatures, variables and frame figures as the transcript shows them.

The service's own DLLs and VC 7.1's runtime have private PDBs; those of the system are public. What VC 8 compiled has
FrameData besides FPO_DATA. Signatures that the transcript does not give are those of the runtimes' sources; those of
the service's other functions are made up to fit their arguments. Some figures do not fit the code (`RaiseException`
counts registers that it has already restored, `RealMsgWaitForMultipleObjectsEx` leaves out those it saves): they stand
in the records as in the transcript.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.forge.cases.ftp_images import Library
from tests.forge.functions_x86 import Function
from tests.forge.pdbs import Annotation, Fpo, Layout, Source, add_fpo, add_frame_data, private_pdb, public_pdb
from tests.support.pdb_model import Convention, Enumeration, Member, Structure, Tag, Variable
from tests.support.pdb_writer import Pdb

_COM = "f:\\sp\\vctools\\compiler\\cxxfe\\sl\\vccom"
_CRT = "f:\\vs70builds\\3052\\vc\\crtbld\\crt\\src"
_FTP = "d:\\fts\\ftpsrvdata_pg\\src"

SOURCES = {
    "ftpsrvdata_pg": {
        "_com_raise_error": Source(
            f"{_COM}\\comraise.cpp",
            18,
            (("HRESULT", "hr"), ("IErrorInfo*", "perrinfo")),
            convention=Convention.STDCALL,
        ),
        "_com_issue_error": Source(f"{_COM}\\comsupp.cpp", 40, (("HRESULT", "hr"),), convention=Convention.STDCALL),
        "PrintProviderError": Source(f"{_FTP}\\idbcommand.cpp", 860, (("ADODB::_ConnectionPtr", "pConnection"),)),
        # The slot of the second parameter has something else: no record tells where the parameter is.
        "IDBCommand::ExecuteResults": Source(
            f"{_FTP}\\idbcommand.cpp",
            610,
            (("_StatsQuery*", "query"), ("int", "")),
            convention=Convention.STDCALL,
            member_of="IDBCommand",
        ),
        "IFTPSystemStats_Impl::UpdateSystemStats": Source(
            f"{_FTP}\\ftpsystemstats_impl.cpp",
            288,
            (("int", "server"), ("_SystemStats*", "stats"), ("int", "count")),
            "HRESULT",
            Convention.STDCALL,
            "IFTPSystemStats_Impl",
            # 045bf9f0, which is passed to ExecuteResults, with ebp at 045bfe08
            (Variable("query", "_StatsQuery", -0x418),),
        ),
    },
    "FTPParsers": {
        "SessionManagerThreadProc": Source(
            "d:\\fts\\ftpparsers\\ftpstats.cpp",
            413,
            (("void*", "context"),),
            "unsigned",
            Convention.STDCALL,
            # 045bfe74, which is passed to UpdateSystemStats, with ebp at 045bff78
            locals=(Variable("stats", "_SystemStats", -0x104),),
        )
    },
    "MSVCR71": {
        "__crtExitProcess": Source(f"{_CRT}\\crt0dat.c", 463, (("int", "status"),)),
        "doexit": Source(f"{_CRT}\\crt0dat.c", 414, (("int", "code"), ("int", "quick"), ("int", "retcaller"))),
        "_exit": Source(f"{_CRT}\\crt0dat.c", 311, (("int", "code"),)),
        "raise": Source(f"{_CRT}\\winsig.c", 508, (("int", "signum"),), "int"),
        "abort": Source(f"{_CRT}\\abort.c", 48),
    },
}

TYPES: dict[str, dict[str, Structure | Enumeration]] = {
    "ftpsrvdata_pg": {
        # `_com_ptr_t` has nothing but the pointer to the interface.
        "ADODB::_ConnectionPtr": Structure(4, (Member("m_pInterface", "ADODB::_Connection*", 0),), tag=Tag.CLASS),
        "_StatsQuery": Structure(8, (Member("kind", "int", 0), Member("rows", "void*", 4))),
    },
    "FTPParsers": {
        "_SystemStats": Structure(12, (Member("sessions", "int", 0), Member("sent", "__int64", 4))),
    },
}

ANNOTATIONS: dict[str, dict[str, Annotation]] = {
    "ntdll": {"KiFastSystemCallRet": Fpo(), "NtWaitForMultipleObjects": Fpo(5)},
    "KERNEL32": {
        "WaitForMultipleObjectsEx": Layout.SEH,
        "UnhandledExceptionFilter": Layout.SEH,
        "BaseThreadStart": Layout.SEH,
        "_except_handler3": Fpo(3, 0, 7, uses_ebp=True),
        "RaiseException": Fpo(4, 20, 4),
    },
    "USER32": {"RealMsgWaitForMultipleObjectsEx": Fpo(5, 13)},
    "ole32": {"CCliModalLoop::BlockFn": Fpo(3, 0, 4), "CoWaitForMultipleHandles": Fpo(5, 20, 4)},
    "mscorwks": {
        "NT5WaitRoutine": Fpo(5, 1),
        "MsgWaitHelper": Layout.SEH,
        "Thread::DoAppropriateAptStateWait": Fpo(5, 0, 4),
        "Thread::DoAppropriateWaitWorker": Fpo(5, 22, 4),
        "Thread::DoAppropriateWait": Layout.SEH,
        "CLREvent::WaitEx": Fpo(3, 11, 4),
        "CLREvent::Wait": Fpo(3),
        "CorExitProcess": Fpo(0, 21, 4),
        "WaitForEndOfShutdown": Fpo(),
        "EEShutDown": Fpo(1, 5, 4),
        "DisableRuntime": Fpo(),
    },
    "mscoree": {"CorExitProcess": Fpo(1, 1)},
    "MSVCR71": {
        "__crtExitProcess": Fpo(1),
        "doexit": Layout.NON_FPO,
        "_exit": Fpo(1),
        "raise": Layout.NON_FPO,
        "abort": Fpo(),
    },
    "MSVCR80": {"_CxxThrowException": Fpo(2, 8)},
    "ftpsrvdata_pg": {
        "_com_raise_error": Fpo(2, 4),
        "_com_issue_error": Fpo(1),
        "PrintProviderError": Fpo(1, 2058),
    },
}

_WITH_FRAME_DATA = {"ftpsrvdata_pg", "FTPParsers", "MSVCR80", "mscorwks"}


def build_pdbs(library: Library, functions: Iterable[Function]) -> dict[str, Pdb]:
    """Return the PDBs of the DLLs by file name. `functions` are those whose code is known, of all of them."""
    functions = list(functions)
    pdbs = {}
    for stem, image in library.images.items():
        assert image.pdb is not None
        sources = SOURCES.get(stem)
        pdb = (
            public_pdb(image, functions)
            if sources is None
            else private_pdb(image, functions, sources, TYPES.get(stem, {}))
        )
        if stem in _WITH_FRAME_DATA:
            add_frame_data(pdb, image, functions)
        add_fpo(pdb, image, functions, ANNOTATIONS.get(stem, {}))
        if pdb.publics or pdb.procedures:
            pdbs[image.pdb.name] = pdb
    return pdbs
