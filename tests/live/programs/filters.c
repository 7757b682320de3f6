// SPDX-License-Identifier: Apache-2.0
// What a top-level exception filter may do instead of ending the process.
#include "filters.h"

RECORDED(void, __cdecl, abort, (void), TS_FOREIGN)
RECORDED(void, __cdecl, exit, (int code), TS_FOREIGN)

static volatile uintptr_t low = 8;
static volatile int sink;

// The C runtime's way out of abort: exit, which hands over to the CLR when that is loaded.
static void __cdecl on_abort(int signal) {
    ENTER();
    HERE(ts_to_exit(signal));
    sink = signal;
}

void filters_start(void) {
    void *runtime = LoadLibraryA("msvcrt.dll");
    ts_real_abort = (void *)GetProcAddress(runtime, "abort");
    ts_real_exit = (void *)GetProcAddress(runtime, "exit");
}

long WINAPI sleep_in_filter(EXCEPTION_POINTERS *pointers) {
    ENTER();
    HERE(Sleep(INFINITE));
    return (long)pointers->record->code;
}

static NOINLINE void terminate_program(void) {
    ENTER();
    HERE(ts_to_abort());
    sink = 1;
}

long WINAPI abort_in_filter(EXCEPTION_POINTERS *pointers) {
    typedef void(__cdecl * HANDLER)(int);
    typedef HANDLER(__cdecl * SIGNAL)(int, HANDLER);
    ENTER();
    LoadLibraryA("mscoree.dll");
    ((SIGNAL)GetProcAddress(GetModuleHandleA("msvcrt.dll"), "signal"))(22, on_abort);
    HERE(terminate_program());
    return (long)pointers->record->code;
}

// The second exception is raised while the first is being filtered, and finds no filter.
long WINAPI fault_in_top_filter(EXCEPTION_POINTERS *pointers) {
    ENTER();
    SetUnhandledExceptionFilter(NULL);
    sink = HERE(*(volatile int *)low);
    return (long)pointers->record->code + sink;
}
