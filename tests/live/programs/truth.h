// SPDX-License-Identifier: Apache-2.0
// The truth that a program keeps about itself: a shadow stack for each thread, and the exceptions it raised.
//
// ENTER() stands first in every function of a stack that will be compared. It notes the function's return address
// and the stack slot that holds it; both are known to the compiler from its own frame layout, not found by
// unwinding. Calls into foreign DLLs go through trampolines (RECORDED) that note the same of the foreign function
// and jump on. A vectored handler notes each exception's record, context, ip and sp as the system hands them over.
// All of it lies in the exported `ts_truth`, which the capture reads out of the blocked process.
//
// The thread's log is found through NT_TIB.ArbitraryUserPointer, so that ENTER needs no call (a leaf stays a leaf)
// and works across DLLs.
#ifndef TRUTH_H
#define TRUTH_H

#include "win.h"

#define TS_ENTRIES 400
#define TS_EXCEPTIONS 8
#define TS_THREADS 24

// Kinds of entries. FOREIGN is a function of somebody else's DLL, which may have called others of its own before the
// next entry; DIRECT is a foreign function known to be the very frame that the next entry returns to. SWITCHED is the
// first function on another stack: the slots of the entries before it are on the stack that was left.
#define TS_PROGRAM 0
#define TS_FOREIGN 1
#define TS_DIRECT 2
#define TS_SWITCHED 3

// One entry of a shadow stack.
typedef struct TsEntry {
    uint64_t slot, ret, function, line, kind;
} TsEntry;

typedef struct TsException {
    uint64_t code, ip, sp, bp, record, context, handled, depth;
} TsException;

// `role` says what is expected of the thread; see the ROLE_ values. `waits_at` is where it will wait, if that is a copy
// of a system call's stub.
typedef struct TsThread {
    uint64_t depth, tid, role, note, exception_count, expects_handled;
    TsEntry entries[TS_ENTRIES];
    TsException exceptions[TS_EXCEPTIONS];
    uint64_t waits_at;
} TsThread;

// ROLE_WALKED is a thread that only waits, with a stack that it noted.
enum {
    ROLE_WAITS = 1,
    ROLE_CRASHES = 2,
    ROLE_HANDLED = 3,
    ROLE_HOLDS_ADDRESS = 4,
    ROLE_SHUTS_DOWN = 5,
    ROLE_WALKED = 6
};

typedef struct TsTruth {
    char magic[16];
    uint64_t thread_count, ready;
    TsThread threads[TS_THREADS];
} TsTruth;

#define NOINLINE __attribute__((noinline))

#ifdef __cplusplus
extern "C" {
#endif

TsThread *ts_begin(uint64_t role, const char *note);
void ts_start(void);
void ts_decoys(void);
HANDLE ts_spawn(THREAD_PROC procedure, void *argument);
void ts_ready(void);
BOOL ts_argument(const char *word);

// What stands between a function and the call of it whose result must not become a tail call.
extern volatile int ts_zero;

static inline __attribute__((always_inline)) TsThread *ts_current(void) {
    TsThread *log;
#ifdef _WIN64
    __asm__ volatile("movq %%gs:0x28, %0" : "=r"(log));
#else
    __asm__ volatile("movl %%fs:0x14, %0" : "=r"(log));
#endif
    return log;
}

#ifdef __clang__
void *_AddressOfReturnAddress(void);
#define TS_SLOT() ((uintptr_t)_AddressOfReturnAddress())
#else
// The canonical frame address is one word above the return address.
#define TS_SLOT() ((uintptr_t)__builtin_dwarf_cfa() - sizeof(void *))
#endif

// Note this function. `HERE(call)` notes the source line of a call before making it.
#define ENTER() \
    TsThread *const ts_log = ts_current(); \
    TsEntry *const ts_entry = &ts_log->entries[ts_log->depth]; \
    ts_log->depth = ts_log->depth + 1; \
    ts_entry->slot = TS_SLOT(); \
    ts_entry->ret = (uintptr_t)__builtin_return_address(0); \
    ts_entry->function = (uintptr_t)__func__; \
    ts_entry->kind = TS_PROGRAM; \
    ts_entry->line = __LINE__

#define HERE(expression) (ts_entry->line = __LINE__, (expression))

// A trampoline `ts_to_NAME`: notes the return address on top of the stack and its slot under the name, then jumps
// through the pointer `ts_real_NAME`. Only volatile registers change. A copy of it in other memory does the same.
#define TS_STRING_(x) #x
#define TS_STRING(x) TS_STRING_(x)
#ifdef _WIN64
#define TS_TRAMPOLINE(name, kind_value, jump) \
    "movq %gs:0x28, %rax\n\t" \
    "imulq $40, (%rax), %r10\n\t" \
    "incq (%rax)\n\t" \
    "leaq 48(%rax,%r10), %rax\n\t" \
    "movq %rsp, (%rax)\n\t" \
    "movq (%rsp), %r10\n\t" \
    "movq %r10, 8(%rax)\n\t" \
    "movabsq $ts_name_" #name ", %r10\n\t" \
    "movq %r10, 16(%rax)\n\t" \
    "movq $0, 24(%rax)\n\t" \
    "movq $" TS_STRING(kind_value) ", 32(%rax)\n\t" jump
#define TS_JUMP(name) "jmpq *ts_real_" #name "(%rip)"
#else
#define TS_TRAMPOLINE(name, kind_value, jump) \
    "pushl %edx\n\t" \
    "pushl %ecx\n\t" \
    "movl %fs:0x14, %eax\n\t" \
    "imull $40, (%eax), %ecx\n\t" \
    "incl (%eax)\n\t" \
    "leal 48(%eax,%ecx), %eax\n\t" \
    "leal 8(%esp), %ecx\n\t" \
    "movl %ecx, (%eax)\n\t" \
    "movl 8(%esp), %ecx\n\t" \
    "movl %ecx, 8(%eax)\n\t" \
    "movl $_ts_name_" #name ", 16(%eax)\n\t" \
    "movl $" TS_STRING(kind_value) ", 32(%eax)\n\t" \
    "popl %ecx\n\t" \
    "popl %edx\n\t" jump
#define TS_JUMP(name) "jmpl *_ts_real_" #name
#endif

// A call that is noted by the caller, because nothing at its target will note itself. The constraint (m or r) of the
// operand after `call *%1` chooses the form of the call.
#ifdef _WIN64
#define TS_NOTED_CALL(call) \
    "leaq 1f(%%rip), %%rax\n\tmovq %%rax, 8(%0)\n\tleaq -8(%%rsp), %%rax\n\tmovq %%rax, (%0)\n\t" call "\n1:"
#else
#define TS_NOTED_CALL(call) "movl $1f, 8(%0)\n\tleal -4(%%esp), %%eax\n\tmovl %%eax, (%0)\n\t" call "\n1:"
#endif
#define CALL_NOTED(call, ...) \
    do { \
        TsEntry *noted = &ts_log->entries[ts_log->depth]; \
        ts_log->depth = ts_log->depth + 1; \
        noted->function = (uintptr_t)"nowhere"; \
        noted->kind = TS_DIRECT; \
        __asm__ volatile(TS_NOTED_CALL(call) : : "r"(noted), __VA_ARGS__ : "eax", "memory"); \
    } while (0)
#define CALL_NOWHERE(where, constraint) CALL_NOTED("call *%1", constraint(where))

#define RECORDED(type, convention, name, parameters, kind_value) \
    __attribute__((used)) void *ts_real_##name; \
    __attribute__((used)) char ts_name_##name[] = #name; \
    NOINLINE __attribute__((naked)) type convention ts_to_##name parameters { \
        __asm__(TS_TRAMPOLINE(name, kind_value, TS_JUMP(name))); \
    }

#ifdef __cplusplus
}
#endif
#endif
