// SPDX-License-Identifier: Apache-2.0
// Detours: the first instructions of a function are moved to private memory (the trampoline), where a jump back follows
// them; in their place is a jump to a hook, which goes on through the trampoline. And system calls whose stub was moved
// to private memory whole.
#include "rough.h"

RECORDED(void, WINAPI, raise_on, (DWORD code, DWORD flags, DWORD count, const uintptr_t *arguments), TS_DIRECT)
RECORDED(long, WINAPI, delay_stub, (BOOL alertable, const void *interval), TS_DIRECT)
RECORDED(long, WINAPI, wait_stub, (HANDLE object, BOOL alertable, const void *timeout), TS_DIRECT)

static RUNG patched_on;
static void *peeks_on;
static volatile int sink;

// The functions that are patched. `patched` notes itself after its prologue, which is what the trampoline gets;
// `peeks` faults in what the trampoline gets.
#ifdef _WIN64
enum { PATCHED_MOVED = 5, PEEKS_MOVED = 5, RAISE_MOVED = 8, STUB = 32, STUB_CALLED = 20 };
__attribute__((used)) char ts_name_patched[] = "patched";
__asm__(".text\n"
        ".globl patched\n"
        ".def patched; .scl 2; .type 32; .endef\n"
        ".seh_proc patched\n"
        "patched:\n\t"
        "pushq %rbx\n\t"
        ".seh_pushreg %rbx\n\t"
        "subq $48, %rsp\n\t"
        ".seh_stackalloc 48\n\t"
        ".seh_endprologue\n\t"
        "movq %gs:0x28, %rax\n\t"
        "imulq $40, (%rax), %r10\n\t"
        "incq (%rax)\n\t"
        "leaq 48(%rax,%r10), %rax\n\t"
        "leaq 56(%rsp), %r10\n\t"
        "movq %r10, (%rax)\n\t"
        "movq 56(%rsp), %r10\n\t"
        "movq %r10, 8(%rax)\n\t"
        "movabsq $ts_name_patched, %r10\n\t"
        "movq %r10, 16(%rax)\n\t"
        "movq $0, 24(%rax)\n\t"
        "movq $0, 32(%rax)\n\t"
        "movslq (%rcx), %rax\n\t"
        "incl (%rcx)\n\t"
        "callq *8(%rcx,%rax,8)\n\t"
        "addq $48, %rsp\n\t"
        "popq %rbx\n\t"
        "retq\n\t"
        ".seh_endproc\n"
        ".globl peeks\n"
        "peeks:\n\t"
        "movq 8(%rcx), %rax\n\t"
        "pushq %rbx\n\t"
        "popq %rbx\n\t"
        "retq\n");
#else
enum { PATCHED_MOVED = 6, PEEKS_MOVED = 5, RAISE_MOVED = 5, STUB = 15, STUB_CALLED = 12 };
__attribute__((used)) char ts_name_patched[] = "patched";
__asm__(".text\n"
        ".globl _patched\n"
        ".def _patched; .scl 2; .type 32; .endef\n"
        "_patched:\n\t"
        "pushl %ebp\n\t"
        "movl %esp, %ebp\n\t"
        "subl $16, %esp\n\t"
        "movl %fs:0x14, %eax\n\t"
        "imull $40, (%eax), %ecx\n\t"
        "incl (%eax)\n\t"
        "leal 48(%eax,%ecx), %eax\n\t"
        "leal 4(%ebp), %ecx\n\t"
        "movl %ecx, (%eax)\n\t"
        "movl 4(%ebp), %ecx\n\t"
        "movl %ecx, 8(%eax)\n\t"
        "movl $_ts_name_patched, 16(%eax)\n\t"
        "movl $0, 24(%eax)\n\t"
        "movl $0, 32(%eax)\n\t"
        "movl 8(%ebp), %ecx\n\t"
        "pushl %ecx\n\t"
        "movl (%ecx), %eax\n\t"
        "incl (%ecx)\n\t"
        "calll *4(%ecx,%eax,4)\n\t"
        "movl %ebp, %esp\n\t"
        "popl %ebp\n\t"
        "retl\n"
        ".globl _peeks\n"
        "_peeks:\n\t"
        "movl 4(%ecx), %eax\n\t"
        "pushl %ebx\n\t"
        "nop\n\t"
        "popl %ebx\n\t"
        "retl\n");
#endif
int patched(Plan *);
extern uint8_t peeks[];

static void jump(uint8_t *at, const void *target) {
#ifdef _WIN64
    at[0] = 0xFF, at[1] = 0x25, *(uint32_t *)(at + 2) = 0; // jmp [rip]
    *(uint64_t *)(at + 6) = (uintptr_t)target;
#else
    at[0] = 0xE9;
    *(uint32_t *)(at + 1) = (uint32_t)target - (uint32_t)(at + 5);
#endif
}

// Returns code memory that a jump from `function` reaches.
static uint8_t *memory_near(const uint8_t *function) {
#ifdef _WIN64
    uintptr_t where = ((uintptr_t)function & ~(uintptr_t)0xFFFF) - 0x1000000;
    int tries;
    for (tries = 0; tries < 1000; tries++, where -= 0x10000) {
        uint8_t *memory = VirtualAlloc((void *)where, 0x1000, COMMIT_AND_RESERVE, PAGE_OF_CODE);
        if (memory != NULL)
            return memory;
    }
#endif
    (void)function;
    return code_memory(0);
}

// Makes `function` go to `hook`, and returns the trampoline: its first `moved` bytes, and a jump to what follows them.
static void *detour(uint8_t *function, int moved, const void *hook) {
    uint8_t *trampoline = memory_near(function), *relay = trampoline + 64;
    DWORD old;
    int i;
    for (i = 0; i < moved; i++)
        trampoline[i] = function[i];
    jump(trampoline + moved, function + moved);
    jump(relay, hook);
    VirtualProtect(function, (size_t)moved, PAGE_OF_CODE, &old);
    function[0] = 0xE9;
    *(uint32_t *)(function + 1) = (uint32_t)(relay - (function + 5));
    for (i = 5; i < moved; i++)
        function[i] = 0x90;
    VirtualProtect(function, (size_t)moved, old, &old);
    return trampoline;
}

static int hook_of_patched(Plan *plan) {
    ENTER();
    return HERE(patched_on(plan)) + 1;
}

static int hook_of_peeks(Plan *plan) {
    ENTER();
    volatile int kept;
    prepare(&kept);
    ts_entry->line = __LINE__ + 1;
    CALL_NOTED("call *%1", "r"(peeks_on), "c"(16));
    return kept + plan->at;
}

static void WINAPI hook_of_raise(DWORD code, DWORD flags, DWORD count, const uintptr_t *arguments) {
    ENTER();
    HERE(ts_to_raise_on(code, flags, count, arguments));
    sink = 1;
}

static long WINAPI hook_of_delay(BOOL alertable, const void *interval) {
    ENTER();
    ts_log->waits_at = (uintptr_t)ts_real_delay_stub + STUB_CALLED;
    return HERE(ts_to_delay_stub(alertable, interval)) + sink;
}

NOINLINE int calls_patched(Plan *plan) {
    ENTER();
    return HERE(patched(plan)) + 1;
}

NOINLINE int faults_in_trampoline(Plan *plan) {
    ENTER();
    return HERE(((RUNG)(uintptr_t)peeks)(plan)) + 1;
}

NOINLINE int waits_in_stub(Plan *plan) {
    ENTER();
    HANDLE event = CreateEventA(NULL, 1, 0, NULL);
    ts_log->waits_at = (uintptr_t)ts_real_wait_stub + STUB_CALLED;
    return (int)HERE(ts_to_wait_stub(event, 0, NULL)) + plan->at;
}

long WINAPI wait_in_filter_by_stub(EXCEPTION_POINTERS *pointers) {
    ENTER();
    HANDLE event = CreateEventA(NULL, 1, 0, NULL);
    ts_log->waits_at = (uintptr_t)ts_real_wait_stub + STUB_CALLED;
    return (long)pointers->record->code + HERE(ts_to_wait_stub(event, 0, NULL));
}

// After this no thread without a log may sleep, or raise an exception.
void hooks_start(void) {
    void *ntdll = GetModuleHandleA("ntdll");
    uint8_t *wait = GetProcAddress(ntdll, "NtWaitForSingleObject"), *copy = code_memory(0);
    int i;
    for (i = 0; i < STUB; i++)
        copy[i] = wait[i];
    ts_real_wait_stub = copy;
    ts_real_delay_stub = detour(GetProcAddress(ntdll, "NtDelayExecution"), STUB, (void *)hook_of_delay);
    ts_real_raise_on = detour(GetProcAddress(GetModuleHandleA("kernelbase"), "RaiseException"), RAISE_MOVED, (void *)hook_of_raise);
    patched_on = (RUNG)(uintptr_t)detour((uint8_t *)(uintptr_t)patched, PATCHED_MOVED, (void *)hook_of_patched);
    peeks_on = detour(peeks, PEEKS_MOVED, (void *)hook_of_peeks);
}
