// SPDX-License-Identifier: Apache-2.0
// Handlers that do not come back, and one that is normal life: a thread that waits in a __finally block.
#include "rough.h"

RECORDED(void, WINAPI, Sleep, (DWORD milliseconds), TS_FOREIGN)

static FILTER system_filter;
static volatile int sink;

NOINLINE int sleeps(Plan *plan) {
    ENTER();
    HERE(ts_to_Sleep(INFINITE));
    return sink + plan->at;
}

static BOOL is_to_die(void) {
    TsThread *log = ts_current();
    return log != NULL && log->role == ROLE_CRASHES;
}

static long WINAPI ask_system(EXCEPTION_POINTERS *pointers) {
    return is_to_die() ? system_filter(pointers) : EXCEPTION_CONTINUE_SEARCH;
}

static long WINAPI wait_for_ever(EXCEPTION_POINTERS *pointers) {
    if (is_to_die())
        WaitForSingleObject(CreateEventA(NULL, 1, 0, NULL), INFINITE);
    return pointers->record->code == 1;
}

void handlers_start(void) {
    ts_real_Sleep = GetProcAddress(GetModuleHandleA("kernel32"), "Sleep");
}

void hand_over_at_once(void) {
    system_filter = (FILTER)(uintptr_t)GetProcAddress(GetModuleHandleA("kernelbase"), "UnhandledExceptionFilter");
    AddVectoredExceptionHandler(0, ask_system);
}

void wait_in_vectored_handler(void) {
    AddVectoredExceptionHandler(0, wait_for_ever);
}

#ifdef __clang__
static NOINLINE long filter_that_waits(void) {
    WaitForSingleObject(CreateEventA(NULL, 1, 0, NULL), INFINITE);
    return sink;
}

NOINLINE int fault_with_waiting_filter(Plan *plan) {
    ENTER();
    __try {
        return HERE(fault_read(plan));
    } __except (filter_that_waits()) {
        return sink;
    }
}

static NOINLINE void raise_and_clean_up(void) {
    __try {
        RaiseException(0xE0000043, 0, 0, NULL);
    } __finally {
        WaitForSingleObject(CreateEventA(NULL, 1, 0, NULL), INFINITE);
    }
}

static NOINLINE void raise_and_catch(void) {
    __try {
        raise_and_clean_up();
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        sink = 0;
    }
}

static DWORD WINAPI cleaner(void *unused) {
    TsThread *log = ts_begin(ROLE_HANDLED, "waits in a __finally block");
    (void)unused;
    log->expects_handled = 2;
    raise_and_catch();
    return 0;
}

void finally_start(void) {
    ts_spawn(cleaner, NULL);
}
#endif
