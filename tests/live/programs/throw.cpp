// SPDX-License-Identifier: Apache-2.0
// throw.exe SCENARIO: C++ exceptions that nobody catches, thrown through frames with destructors and other handlers.
#include "shapes.h"

// The runtime's own throw is reached through a trampoline, and so is the RaiseException that it calls: its import is
// patched once it is loaded.
extern "C" {
RECORDED(void, WINAPI, RaiseException, (DWORD, DWORD, DWORD, const uintptr_t *), TS_DIRECT)
#ifdef __clang__
void *ts_real_CxxThrow;
__attribute__((used)) char ts_name_CxxThrow[] = "_CxxThrowException";
NOINLINE __attribute__((naked)) void WINAPI _CxxThrowException(void *, void *) {
    __asm__(TS_TRAMPOLINE(CxxThrow, 2, TS_JUMP(CxxThrow)));
}
#else
__attribute__((used)) void *ts_real_throw;
__attribute__((used)) char ts_name_throw[] = "__cxa_throw";
void __real___cxa_throw(void *, void *, void (*)(void *));
NOINLINE __attribute__((naked)) void __wrap___cxa_throw(void *, void *, void (*)(void *)) {
    __asm__(TS_TRAMPOLINE(throw, 1, TS_JUMP(throw)));
}
#endif
}

#ifdef __clang__
// What the C++ runtime's static part would bring: the vftable that type descriptors begin with.
__asm__(".section .rdata,\"dr\"\n\t"
        ".globl \"??_7type_info@@6B@\"\n"
        "\"??_7type_info@@6B@\":\n\t"
        ".quad 0, 0\n\t"
        ".text");
void operator delete(void *, size_t) {}
#endif

// Points every import of RaiseException in a loaded module at the trampoline: without that, nothing would note the
// frame between the throw and RaiseException.
static void hook_raise(uint8_t *image) {
    uint8_t *header = image + *(uint32_t *)(image + 0x3C);
#ifdef _WIN64
    uint32_t table = *(uint32_t *)(header + 24 + 208), size = *(uint32_t *)(header + 24 + 212);
#else
    uint32_t table = *(uint32_t *)(header + 24 + 192), size = *(uint32_t *)(header + 24 + 196);
#endif
    void *real = GetProcAddress(GetModuleHandleA("kernel32"), "RaiseException");
    void *base = GetProcAddress(GetModuleHandleA("kernelbase"), "RaiseException");
    ts_real_RaiseException = real;
    for (void **slot = (void **)(image + table); (uint8_t *)slot < image + table + size; slot++)
        if (*slot == real || *slot == base) {
            DWORD old;
            VirtualProtect(slot, sizeof *slot, 4, &old);
            *slot = (void *)ts_to_RaiseException;
            VirtualProtect(slot, sizeof *slot, old, &old);
        }
}

namespace store {

static volatile int sink;

class Problem {
public:
    explicit Problem(int value) : number(value) {}
    virtual ~Problem() {}
    virtual const char *what() const { return "the store is closed"; }
    int number;
};

class StoreProblem : public Problem {
public:
    explicit StoreProblem(int value) : Problem(value), shelf(7) {}
    int shelf;
};

struct Guard {
    int kept;
    explicit Guard(int value) : kept(value) {}
    NOINLINE ~Guard() { sink = sink + kept; }
};

static NOINLINE int throw_class(Plan *plan) {
    ENTER();
    if (plan->at < 100)
        HERE(throw StoreProblem(plan->at));
    return plan->at;
}

static NOINLINE int throw_number(Plan *plan) {
    ENTER();
    if (plan->at < 100)
        HERE(throw plan->at);
    return plan->at;
}

static NOINLINE int guarded(Plan *plan) {
    ENTER();
    Guard guard(plan->at);
    int result = HERE(NEXT(plan));
    return result + guard.kept;
}

static NOINLINE int catches_other(Plan *plan) {
    ENTER();
    try {
        return HERE(NEXT(plan)) + 1;
    } catch (const char *text) {
        return text[0];
    }
}

class Shelf {
public:
    int number;
    NOINLINE int take(Plan *plan, int count) {
        ENTER();
        Guard guard(count);
        return HERE(NEXT(plan)) + number + count;
    }
};

static NOINLINE int by_method(Plan *plan) {
    ENTER();
    Shelf shelf = {sink + 3};
    return HERE(shelf.take(plan, sink + 4)) + 1;
}

static Plan with_class = {0, {plain, guarded, by_method, catches_other, throw_class}};
static Plan with_number = {0, {by_alloca, catches_other, through_dll, guarded, throw_number}};

#ifdef __clang__
// Called through a variable: the compiler sees through the trampoline of the throw and takes it for a function that
// never throws.
static NOINLINE void throw_caught(int number) {
    throw number;
}
static void (*volatile thrower)(int) = throw_caught;

// A decoy: waits in a catch block, which runs on top of the frames that dispatched the exception. gcc's runs after them.
static DWORD WINAPI waits_in_catch(void *) {
    TsThread *log = ts_begin(ROLE_HANDLED, "caught a C++ exception and waits in the catch block");
    log->expects_handled = 2;
    try {
        thrower(sink);
    } catch (int) {
        log->depth = 0; // the throw's trampolines noted themselves
        WaitForSingleObject(CreateEventA(nullptr, 1, 0, nullptr), INFINITE);
    }
    return 0;
}
#endif

}  // namespace store

int main() {
    ts_start();
    shapes_start();
#ifdef __clang__
    // Wine's own runtime forwards the export to another DLL: the imports that count are those of where it ends.
    void *runtime;
    ts_real_CxxThrow = GetProcAddress(LoadLibraryA("vcruntime140.dll"), "_CxxThrowException");
    RtlPcToFileHeader(ts_real_CxxThrow, &runtime);
    hook_raise((uint8_t *)runtime);
#else
    ts_real_throw = (void *)__real___cxa_throw;
    hook_raise((uint8_t *)GetModuleHandleA(nullptr));
    // mingw's own filter would continue a throw that found no handler, and so end the process.
    SetUnhandledExceptionFilter(nullptr);
#endif
    ts_decoys();
#ifdef __clang__
    ts_spawn(store::waits_in_catch, nullptr);
#endif
    if (ts_argument("class") || ts_argument("both"))
        ts_spawn(climb, &store::with_class);
    if (ts_argument("number") || ts_argument("both"))
        ts_spawn(climb, &store::with_number);
    ts_ready();
    Sleep(INFINITE);
    return 0;
}
