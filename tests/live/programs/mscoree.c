// SPDX-License-Identifier: Apache-2.0
// Stands in for the CLR's shim: CorExitProcess waits for an end of shutdown that does not come.
#include "truth.h"

static NOINLINE int wait_for_end_of_shutdown(HANDLE end) {
    ENTER();
    return (int)HERE(WaitForSingleObject(end, INFINITE)) + 1;
}

__declspec(dllexport) void __cdecl CorExitProcess(int code);

void __cdecl CorExitProcess(int code) {
    ENTER();
    volatile int kept = code;
    kept += HERE(wait_for_end_of_shutdown(CreateEventA(NULL, 1, 0, NULL)));
}
