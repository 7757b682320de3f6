// SPDX-License-Identifier: Apache-2.0
// Keeps the truth (see truth.h), and the decoy threads that every program has.
#include "truth.h"

__declspec(dllexport) TsTruth ts_truth = {"throwstack-live", 0, 0, {{0}}};
volatile int ts_zero;
#ifdef __clang__
int _fltused = 1; // asked for by code with floating point, where there is no C runtime
#endif
static volatile long next_thread;

TsThread *ts_begin(uint64_t role, const char *note) {
    TsThread *log = &ts_truth.threads[__sync_fetch_and_add(&next_thread, 1)];
    log->tid = GetCurrentThreadId();
    log->role = role;
    log->note = (uintptr_t)note;
#ifdef _WIN64
    __asm__ volatile("movq %0, %%gs:0x28" : : "r"(log));
#else
    __asm__ volatile("movl %0, %%fs:0x14" : : "r"(log));
#endif
    __sync_fetch_and_add((volatile long *)&ts_truth.thread_count, 1);
    return log;
}

// Notes the exception. One that the thread means to survive is repaired: the decoy's faulting instruction reads
// through ax, which is pointed at readable memory.
static long WINAPI note_exception(EXCEPTION_POINTERS *pointers) {
    TsThread *log = ts_current();
    TsException *noted;
    if (log == NULL || log->exception_count == TS_EXCEPTIONS)
        return EXCEPTION_CONTINUE_SEARCH;
    noted = &log->exceptions[log->exception_count];
    noted->code = pointers->record->code;
    noted->ip = pointers->context->ip;
    noted->sp = pointers->context->sp;
    noted->bp = pointers->context->bp;
    noted->record = (uintptr_t)pointers->record;
    noted->context = (uintptr_t)pointers->context;
    noted->handled = log->expects_handled;
    noted->depth = log->depth;
    log->exception_count++;
    if (log->expects_handled == 1 && pointers->record->code == 0xC0000005) {
        pointers->context->ax = (uintptr_t)&ts_truth;
        return EXCEPTION_CONTINUE_EXECUTION;
    }
    return EXCEPTION_CONTINUE_SEARCH;
}

void ts_start(void) {
    AddVectoredExceptionHandler(1, note_exception);
}

HANDLE ts_spawn(THREAD_PROC procedure, void *argument) {
    return CreateThread(NULL, 0, procedure, argument, 0, NULL);
}

void ts_ready(void) {
    ts_truth.ready = 1;
}

BOOL ts_argument(const char *word) {
    const char *line = GetCommandLineA();
    const char *last = line;
    for (; *line; line++)
        if (*line == ' ')
            last = line + 1;
    while (*word && *word == *last)
        word++, last++;
    return *word == 0 && (*last == 0 || *last == '"');
}

// --- decoys ---------------------------------------------------------------------------------------------------------

enum { HELD = 16 };

// Fills an array with the address of UnhandledExceptionFilter, and one just after a call inside it, in turn.
static NOINLINE void hold_filter(volatile uintptr_t *held) {
    uint8_t *filter = (uint8_t *)GetProcAddress(GetModuleHandleA("kernelbase"), "UnhandledExceptionFilter"), *code;
    int i;
    if (filter == NULL)
        filter = (uint8_t *)GetProcAddress(GetModuleHandleA("kernel32"), "UnhandledExceptionFilter");
    code = filter;
    while (code < filter + 0x200 && code[0] != 0xE8 && !(code[0] == 0xFF && code[1] == 0x15))
        code++;
    for (i = 0; i < HELD; i += 2) {
        held[i] = (uintptr_t)filter;
        held[i + 1] = (uintptr_t)code + (code[0] == 0xE8 ? 5 : 6);
    }
}

// Waits with whatever the earlier calls left below now lying inside its own frame, and at the frame's inner end addresses
// of UnhandledExceptionFilter: read as a stack, all that is a crash. The compiler is made to believe that the array is
// used: of one with constant indices clang keeps the bytes used, and the remains would lie below the frame.
static NOINLINE void wait_over_remains(void) {
    char remains[0x5000] __attribute__((aligned(8)));
    hold_filter((volatile uintptr_t *)remains);
    __asm__ volatile("" : : "r"(remains) : "memory");
    WaitForSingleObject(CreateEventA(NULL, 1, 0, NULL), INFINITE);
    __asm__ volatile("" : : "r"(remains) : "memory");
}

static DWORD WINAPI waiter(void *unused) {
    (void)unused;
    ts_begin(ROLE_WAITS, "waits on an event");
    wait_over_remains();
    return 0;
}

// Survives an access violation, so that its record and CONTEXT stay behind on the stack, and then waits.
static NOINLINE void fault_and_go_on(void) {
    uintptr_t through = 16;
    __asm__ volatile("mov (%0), %0" : "+a"(through) : : "memory");
}

static DWORD WINAPI survivor(void *unused) {
    TsThread *log = ts_begin(ROLE_HANDLED, "handled an access violation and waits");
    (void)unused;
    log->expects_handled = 1;
    fault_and_go_on();
    log->expects_handled = 0;
    wait_over_remains();
    return 0;
}

#if defined(__clang__)
static NOINLINE void raise_and_catch(void) {
    __try {
        RaiseException(0xE0000042, 0, 0, NULL);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        ts_zero = 0;
    }
}

static DWORD WINAPI catcher(void *unused) {
    TsThread *log = ts_begin(ROLE_HANDLED, "caught a raised exception and waits");
    (void)unused;
    log->expects_handled = 2;
    raise_and_catch();
    log->expects_handled = 0;
    wait_over_remains();
    return 0;
}
#endif

// Holds addresses of UnhandledExceptionFilter in a local array.
static DWORD WINAPI holder(void *unused) {
    volatile uintptr_t held[HELD];
    TsThread *log = ts_begin(ROLE_HOLDS_ADDRESS, "holds the address of UnhandledExceptionFilter");
    (void)unused;
    hold_filter(held);
    // Noted like a return address, so that the capture makes sure that it looks like one.
    log->entries[0].slot = (uintptr_t)&held[1];
    log->entries[0].ret = held[1];
    log->entries[0].function = (uintptr_t)"held";
    log->depth = 1;
    WaitForSingleObject(CreateEventA(NULL, 1, 0, NULL), INFINITE);
    return (DWORD)held[ts_zero];
}

void ts_decoys(void) {
    ts_spawn(waiter, NULL);
    ts_spawn(waiter, NULL);
    ts_spawn(survivor, NULL);
#if defined(__clang__)
    ts_spawn(catcher, NULL);
#endif
    ts_spawn(holder, NULL);
    Sleep(100);
}
