// SPDX-License-Identifier: Apache-2.0
// Beside the managed programs: what Wine leaves undone, and notes of the threads that must not be reported.
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

// The truth about threads that wait: read out of the captured process (noted_threads.py has the same layout).
#define NOTES 12
#define NAME 32
#define STACK 2000
__declspec(dllexport) struct {
    char magic[16];
    volatile LONG count, unused;
    struct {
        DWORD tid;
        WCHAR name[NAME], stack[STACK];
    } threads[NOTES];
} noted_threads = {"managed-threads"};

static void copy(WCHAR *to, const WCHAR *from, int size) {
    for (int i = 0; i < size - 1 && from && from[i]; i++)
        to[i] = from[i];
}

__declspec(dllexport) void note_thread(const WCHAR *name, const WCHAR *stack) {
    LONG index = InterlockedIncrement(&noted_threads.count) - 1;
    if (index >= NOTES)
        return;
    copy(noted_threads.threads[index].name, name, NAME);
    copy(noted_threads.threads[index].stack, stack, STACK);
    noted_threads.threads[index].tid = GetCurrentThreadId();
}

// Called first of all: so the runtime loads this DLL before the first exception.
__declspec(dllexport) void begin_help(void) {
}

#ifdef _WIN64
// Wine keeps frames of its own in TEB.ExceptionList on x64 too. .NET 8 leaves a handled exception without
// RtlRestoreContext, which would take them off. The next exception of the thread then finds a frame in memory that has
// been used again, and the process ends. So before each exception the list is set to the thread's outermost frame, the
// one of its start, if what it begins with is below the stack pointer.
static DWORD outermost;

static void note_outermost(ULONG_PTR sp) {
    NT_TIB *tib = (NT_TIB *)NtCurrentTeb();
    ULONG_PTR frame = (ULONG_PTR)tib->ExceptionList;
    if (TlsGetValue(outermost) || frame < sp || frame >= (ULONG_PTR)tib->StackBase)
        return;
    for (int i = 0; i < 100; i++) {
        ULONG_PTR next = *(ULONG_PTR *)frame;
        if (next <= frame || next >= (ULONG_PTR)tib->StackBase)
            break;
        frame = next;
    }
    TlsSetValue(outermost, (void *)frame);
}

static LONG CALLBACK forget_left_frames(EXCEPTION_POINTERS *pointers) {
    NT_TIB *tib = (NT_TIB *)NtCurrentTeb();
    DWORD error = GetLastError();
    note_outermost(pointers->ContextRecord->Rsp);
    if ((ULONG_PTR)tib->ExceptionList < pointers->ContextRecord->Rsp) {
        void *frame = TlsGetValue(outermost);
        tib->ExceptionList = frame ? frame : (void *)~(ULONG_PTR)0;
    }
    SetLastError(error);
    return EXCEPTION_CONTINUE_SEARCH;
}
#endif

// Wine's RaiseFailFastException ends the process at once; Windows' lets error reporting have it first. The runtime calls
// it after a stack overflow. Here the thread waits for AeDebug's debugger, as after any other exception.
static VOID WINAPI fail_fast(EXCEPTION_RECORD *record, CONTEXT *context, DWORD flags) {
    EXCEPTION_POINTERS pointers = {record, context};
    (void)flags;
    SetUnhandledExceptionFilter(NULL);
    UnhandledExceptionFilter(&pointers);
    TerminateProcess(GetCurrentProcess(), 1);
}

static void replace(BYTE *function, void *by) {
    DWORD old;
    VirtualProtect(function, 16, PAGE_EXECUTE_READWRITE, &old);
#ifdef _WIN64
    function[0] = 0x48, function[1] = 0xB8; // mov rax, by
    memcpy(function + 2, &by, 8);
    function[10] = 0xFF, function[11] = 0xE0; // jmp rax
#else
    LONG distance = (LONG)((BYTE *)by - (function + 5));
    function[0] = 0xE9; // jmp by
    memcpy(function + 1, &distance, 4);
#endif
    VirtualProtect(function, 16, old, &old);
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved) {
    (void)self, (void)reserved;
    if (reason == DLL_PROCESS_ATTACH) {
#ifdef _WIN64
        outermost = TlsAlloc();
        note_outermost((ULONG_PTR)&reason);
        AddVectoredExceptionHandler(1, forget_left_frames);
#endif
        replace((BYTE *)GetProcAddress(GetModuleHandleA("kernelbase.dll"), "RaiseFailFastException"), fail_fast);
    }
    return TRUE;
}
