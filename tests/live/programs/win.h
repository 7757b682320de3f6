// SPDX-License-Identifier: Apache-2.0
// The few declarations of the Windows API that the crashing programs use, so that both compilers build them
// without an SDK. Layouts follow the published API documentation.
#ifndef WIN_H
#define WIN_H

#include <stddef.h>
#include <stdint.h>

#define WINAPI __stdcall
#define INFINITE 0xFFFFFFFFu

#ifdef __cplusplus
extern "C" {
#endif

typedef int BOOL;
typedef uint32_t DWORD;
typedef void *HANDLE;

typedef struct EXCEPTION_RECORD {
    DWORD code;
    DWORD flags;
    struct EXCEPTION_RECORD *next;
    void *address;
    DWORD parameter_count;
    uintptr_t parameters[15];
} EXCEPTION_RECORD;

// Only the registers that a handler here looks at, at their offsets in the CONTEXT of each architecture.
typedef struct CONTEXT {
#ifdef _WIN64
    uint8_t home[0x78];
    uint64_t ax, cx, dx, bx, sp, bp, si, di, r[8], ip;
#else
    uint8_t before[0x9C];
    uint32_t di, si, bx, dx, cx, ax, bp, ip, cs, flags, sp;
#endif
} CONTEXT;

typedef struct EXCEPTION_POINTERS {
    EXCEPTION_RECORD *record;
    CONTEXT *context;
} EXCEPTION_POINTERS;

#define EXCEPTION_CONTINUE_EXECUTION (-1)
#define EXCEPTION_CONTINUE_SEARCH 0
#define EXCEPTION_EXECUTE_HANDLER 1

typedef long(WINAPI *FILTER)(EXCEPTION_POINTERS *);
typedef DWORD(WINAPI *THREAD_PROC)(void *);
typedef void(WINAPI *FIBER_PROC)(void *);

typedef struct CRITICAL_SECTION {
    void *debug;
    volatile int lock, recursion;
    void *owner, *semaphore;
    uintptr_t spin;
} CRITICAL_SECTION;

__declspec(dllimport) void *WINAPI AddVectoredExceptionHandler(DWORD first, FILTER handler);
__declspec(dllimport) FILTER WINAPI SetUnhandledExceptionFilter(FILTER filter);
__declspec(dllimport) BOOL WINAPI SetThreadStackGuarantee(DWORD *size);
__declspec(dllimport) HANDLE WINAPI CreateThread(void *, size_t stack, THREAD_PROC, void *, DWORD flags, DWORD *id);
__declspec(dllimport) HANDLE WINAPI CreateEventA(void *, BOOL manual, BOOL set, const char *name);
__declspec(dllimport) HANDLE WINAPI OpenProcess(DWORD access, BOOL inherit, DWORD id);
__declspec(dllimport) DWORD WINAPI WaitForSingleObject(HANDLE, DWORD milliseconds);
__declspec(dllimport) void WINAPI InitializeCriticalSection(CRITICAL_SECTION *);
__declspec(dllimport) void WINAPI EnterCriticalSection(CRITICAL_SECTION *);
__declspec(dllimport) void WINAPI LeaveCriticalSection(CRITICAL_SECTION *);
__declspec(dllimport) DWORD WINAPI GetCurrentThreadId(void);
__declspec(dllimport) void WINAPI Sleep(DWORD milliseconds);
__declspec(dllimport) void *WINAPI GetModuleHandleA(const char *name);
__declspec(dllimport) void *WINAPI LoadLibraryA(const char *name);
__declspec(dllimport) void *WINAPI GetProcAddress(void *module, const char *name);
__declspec(dllimport) void *WINAPI RtlPcToFileHeader(void *address, void **module);
__declspec(dllimport) const char *WINAPI GetCommandLineA(void);
__declspec(dllimport) BOOL WINAPI VirtualProtect(void *, size_t size, DWORD protection, DWORD *old);
__declspec(dllimport) void *WINAPI VirtualAlloc(void *, size_t size, DWORD type, DWORD protection);
__declspec(dllimport) BOOL WINAPI VirtualFree(void *, size_t size, DWORD type);
__declspec(dllimport) BOOL WINAPI FreeLibrary(void *module);
__declspec(dllimport) void *WINAPI ConvertThreadToFiber(void *argument);
__declspec(dllimport) void *WINAPI CreateFiber(size_t stack, FIBER_PROC, void *argument);
__declspec(dllimport) void WINAPI SwitchToFiber(void *fiber);
__declspec(dllimport) void WINAPI ExitProcess(DWORD code);
__declspec(dllimport) void WINAPI RaiseException(DWORD code, DWORD flags, DWORD count, const uintptr_t *arguments);

#ifdef __cplusplus
}
#endif
#endif
