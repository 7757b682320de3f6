# SPDX-License-Identifier: Apache-2.0
"""The stacks of the reference case as WinDbg printed them in the published transcript."""

from __future__ import annotations

# ChildEBP RetAddr Args to Child, as WinDbg printed them.
THREAD = """\
b8fde918 80833485 89e3d418 f77275c8 00000001 nt!KiSwapContext+0x26
b8fde944 808294b9 89e3d418 00000002 00000000 nt!KiSwapThread+0x2e5
b8fde978 80938f68 00000002 b8fdeaac 00000001 nt!KeWaitForMultipleObjects+0x3d7
b8fdebf4 809390ca 00000002 b8fdec1c 00000001 nt!ObpWaitForMultipleObjects+0x202
b8fded48 808897bc 00000002 045b9fbc 00000001 nt!NtWaitForMultipleObjects+0xc8
b8fded48 7c8285ec 00000002 045b9fbc 00000001 nt!KiFastCallEntry+0xfc
045b9f6c 7c827cfb 77e6202c 00000002 045b9fbc ntdll!KiFastSystemCallRet
045b9f70 77e6202c 00000002 045b9fbc 00000001 ntdll!NtWaitForMultipleObjects+0xc
045ba018 7739bbd1 00000002 045ba040 00000000 KERNEL32!WaitForMultipleObjectsEx+0x11a
045ba074 776c1ffa 00000001 001514f8 00013880 USER32!RealMsgWaitForMultipleObjectsEx+0x141
045ba09c 776e2eff 001514f8 00013880 045ba0c4 ole32!CCliModalLoop::BlockFn+0x7d
045ba10c 79f752f0 00000002 00013880 00000001 ole32!CoWaitForMultipleHandles+0xc9
045ba12c 79f75232 00000000 00013880 00000001 mscorwks!NT5WaitRoutine+0x51
045ba198 79f7519a 00000001 001514f8 00000000 mscorwks!MsgWaitHelper+0xa5
045ba1b8 79ed9808 00000001 001514f8 00000000 mscorwks!Thread::DoAppropriateAptStateWait+0x28
045ba23c 79ed96c4 00000001 001514f8 00000000 mscorwks!Thread::DoAppropriateWaitWorker+0x13c
045ba28c 79ed9a62 00000001 001514f8 00000000 mscorwks!Thread::DoAppropriateWait+0x40
045ba2e8 79e78944 00013880 00000001 00000000 mscorwks!CLREvent::WaitEx+0xf7
045ba2fc 79f7515d 00013880 00000001 00000000 mscorwks!CLREvent::Wait+0x17
045ba37c 79f750b9 79f7509d 1e232538 00000000 mscorwks!CorExitProcess+0x30f
045ba380 79f7509d 1e232538 00000000 00000000 mscorwks!WaitForEndOfShutdown+0x5
045ba3ac 79f7478c 00000e10 045ba3f0 79f7394a mscorwks!EEShutDown+0xae
045ba448 79004fab 00000003 79e70000 045ba490 mscorwks!DisableRuntime+0xeb
045ba458 7c348cfa 00000003 7c3476c9 00000003 mscoree!CorExitProcess+0x46
045ba460 7c3476c8 00000003 00000000 7c391300 MSVCR71!__crtExitProcess+0x25
045ba490 7c348d22 00000003 00000001 00000000 MSVCR71!doexit+0xab
045ba4a0 7c34d2b1 00000003 00000000 045ba7a4 MSVCR71!_exit+0xd
045ba4e8 7c34cf8a 00000016 0000000a 00000000 MSVCR71!raise+0xae
045ba524 77e761b7 045ba7a4 00000000 00000000 MSVCR71!abort+0xe
045ba77c 77e792a3 045ba7a4 77e61ac1 045ba7ac KERNEL32!UnhandledExceptionFilter+0x12a
045ba784 77e61ac1 045ba7ac 00000000 045ba7ac KERNEL32!BaseThreadStart+0x4a
045ba7ac 7c828752 045bab68 045bffdc 045ba888 KERNEL32!_except_handler3+0x61
045ba7d0 7c828723 045bab68 045bffdc 045ba888 ntdll!ExecuteHandler2+0x26
045ba878 7c82863c 045b0000 045ba888 00010007 ntdll!ExecuteHandler+0x24
045bab58 77e4bee7 045bab68 00000000 e06d7363 ntdll!RtlRaiseException+0x3d
045babb8 78158e89 e06d7363 00000001 00000003 KERNEL32!RaiseException+0x53
045babf0 03403222 045bac00 03440a54 0342dc6c MSVCR80!_CxxThrowException+0x46
045bac0c 03402f9d 80004003 00000000 033f87b5 ftpsrvdata_pg!_com_raise_error+0x32
045bac18 033f87b5 80004003 045bf9b0 045bd1cc ftpsrvdata_pg!_com_issue_error+0xd
045bcc58 033f9812 00000000 78158ed7 045bf9b0 ftpsrvdata_pg!PrintProviderError+0x35
"""
# The same for the last set context.
THROWING = """\
045babb8 78158e89 e06d7363 00000001 00000003 KERNEL32!RaiseException+0x53
045babf0 03403222 045bac00 03440a54 0342dc6c MSVCR80!_CxxThrowException+0x46
045bac0c 03402f9d 80004003 00000000 033f87b5 ftpsrvdata_pg!_com_raise_error+0x32
045bac18 033f87b5 80004003 045bf9b0 045bd1cc ftpsrvdata_pg!_com_issue_error+0xd
045bcc58 033f9812 00000000 78158ed7 045bf9b0 ftpsrvdata_pg!PrintProviderError+0x35
045bf9bc 033dbf4a 045bf9f0 045bcc60 71f5cadb ftpsrvdata_pg!IDBCommand::ExecuteResults+0x2a2
045bfe08 00d66a6a 00000001 045bfe74 00000015 ftpsrvdata_pg!IFTPSystemStats_Impl::UpdateSystemStats+0xaa
045bff78 781329bb 006ab558 1e2328f2 00000000 FTPParsers!SessionManagerThreadProc+0x19a
045bffb0 78132a47 00000000 77e64829 03266678 MSVCR80!_endthreadex+0x3b
045bffb8 77e64829 03266678 00000000 00000000 MSVCR80!_endthreadex+0xc7
045bffec 00000000 781329e1 03266678 00000000 KERNEL32!BaseThreadStart+0x34
"""
# The vendor's linker had moved these blocks out of their functions, and WinDbg counts in the order before the move.
# No table of addresses can say that; each block has its own start here.
MOVED = {
    "mscorwks!MsgWaitHelper+0xa5": "mscorwks!MsgWaitHelper+0x82",
    "mscorwks!CorExitProcess+0x30f": "mscorwks!CorExitProcess+0x9d",
    "KERNEL32!BaseThreadStart+0x4a": "KERNEL32!BaseThreadStart$filt$0+0x4a",
}
# The transcript gives the word at 045ba464 twice and differently; the return address is right.
CONTRADICTION = ("7c3476c9", "7c3476c8")


def expected(text: str) -> list[str]:
    """Return the lines of a stack of the transcript as they have to come out."""
    rows = []
    for line in text.replace(*CONTRADICTION).splitlines():
        figures, symbol = line.rsplit(" ", 1)
        rows.append(f"{figures} {MOVED.get(symbol, symbol)}")
    return rows
