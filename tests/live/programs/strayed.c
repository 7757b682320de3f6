// SPDX-License-Identifier: Apache-2.0
// Calls and returns that end where no code is any more, and stacks other than the one that the thread began on.
#include "rough.h"

static volatile int sink;

// --- a virtual call through an adjustor thunk: the table's entry is memory that was given back, or data ---

static uint8_t data_not_code[64] = {0xC3};
static const void *table[2];
static struct Object {
    uintptr_t first;
    const void **second_base;
} object = {1, table};

#ifdef _WIN64
#define ADJUSTOR "adjustor"
__asm__(".text\n.globl adjustor\nadjustor:\n\tsubq $8, %rcx\n\tmovq 8(%rcx), %rax\n\tjmpq *8(%rax)\n");
#else
#define ADJUSTOR "_adjustor"
__asm__(".text\n.globl _adjustor\n_adjustor:\n\tsubl $4, %ecx\n\tmovl 4(%ecx), %eax\n\tjmpl *4(%eax)\n");
#endif
extern uint8_t adjustor[];

// Where nothing else is put afterwards.
static const void *given_back(uintptr_t where) {
    void *memory = VirtualAlloc((void *)where, 0x1000, COMMIT_AND_RESERVE, PAGE_OF_CODE);
    if (memory == NULL)
        ExitProcess(4);
    VirtualFree(memory, 0, RELEASE);
    return (uint8_t *)memory + 0x40;
}

NOINLINE int through_thunk_unmapped(Plan *plan) {
    ENTER();
    table[1] = given_back(0x6A000000);
    ts_entry->line = __LINE__ + 1;
    CALL_NOTED("call *%1", "r"(adjustor), "c"(&object.second_base));
    return sink + plan->at;
}

NOINLINE int through_thunk_data(Plan *plan) {
    ENTER();
    volatile int kept;
    prepare(&kept);
    table[1] = data_not_code;
    ts_entry->line = __LINE__ + 1;
    CALL_NOTED("call *%1", "r"(adjustor), "c"(&object.second_base));
    return kept + plan->at;
}

NOINLINE int directly_through_thunk(Plan *plan) {
    ENTER();
    table[1] = given_back(0x6B000000);
    ts_entry->line = __LINE__ + 1;
    CALL_NOTED("call " ADJUSTOR, "c"(&object.second_base));
    return sink + plan->at;
}

// --- a return into a DLL that was unloaded meanwhile ---

static void *gone;

NOINLINE int through_gone(Plan *plan) {
    ENTER();
    gone = LoadLibraryA("gone.dll");
    return HERE(((RUNG)(uintptr_t)GetProcAddress(gone, "gone_climb"))(plan)) + 1;
}

// Its caller is the DLL's function. What was noted of that is right, but for the module: it is in none any more.
NOINLINE int unloads(Plan *plan) {
    ENTER();
    FreeLibrary(gone);
    ts_entry[-1].kind = TS_DIRECT;
    ts_entry[-1].function = (uintptr_t)"gone_climb";
#ifdef _WIN64
    // The caller leaves room for a function to store its arguments in: there too are no remains of earlier calls.
    volatile uint64_t *home = (volatile uint64_t *)(uintptr_t)ts_entry->slot + 1;
    home[0] = home[1] = home[2] = home[3] = 0;
#endif
    ts_log->depth--;
    return plan->at;
}

// --- other stacks ---

static void WINAPI fiber_main(void *plan) {
    ENTER();
    sink = HERE(NEXT((Plan *)plan)) + 1;
}

// The stack of the thread is left for good, and what was noted of it with it.
NOINLINE int on_fiber(Plan *plan) {
    ENTER();
    ConvertThreadToFiber(NULL);
    void *fiber = CreateFiber(0x10000, fiber_main, plan);
    ts_log->depth = 0;
    HERE(SwitchToFiber(fiber));
    return plan->at;
}

// Calls a function on another stack, as split stacks and coroutines do: a frame register keeps the way back. The TEB
// does not know of that stack.
__attribute__((used)) char ts_name_switched[] = "switched";
#ifdef _WIN64
__asm__(".text\n"
        ".globl switched\n"
        ".def switched; .scl 2; .type 32; .endef\n"
        ".seh_proc switched\n"
        "switched:\n\t" TS_TRAMPOLINE(switched, 0, "")
        "pushq %rbp\n\t"
        ".seh_pushreg %rbp\n\t"
        "movq %rsp, %rbp\n\t"
        ".seh_setframe %rbp, 0\n\t"
        ".seh_endprologue\n\t"
        "leaq -32(%rcx), %rsp\n\t"
        "movq %r8, %rcx\n\t"
        "callq *%rdx\n\t"
        "movq %rbp, %rsp\n\t"
        "popq %rbp\n\t"
        "retq\n\t"
        ".seh_endproc\n");
#else
__asm__(".text\n"
        ".globl _switched\n"
        ".def _switched; .scl 2; .type 32; .endef\n"
        "_switched:\n\t" TS_TRAMPOLINE(switched, 0, "")
        "pushl %ebp\n\t"
        "movl %esp, %ebp\n\t"
        "movl 16(%ebp), %ecx\n\t"
        "movl 12(%ebp), %edx\n\t"
        "movl 8(%ebp), %esp\n\t"
        "pushl %ecx\n\t"
        "calll *%edx\n\t"
        "movl %ebp, %esp\n\t"
        "popl %ebp\n\t"
        "retl\n");
#endif
int switched(uint8_t *top, RUNG function, Plan *plan);

static int on_other_stack(Plan *plan) {
    ENTER();
    ts_entry->kind = TS_SWITCHED;
    return HERE(NEXT(plan)) + 1;
}

NOINLINE int on_own_stack(Plan *plan) {
    ENTER();
    uint8_t *stack = VirtualAlloc(NULL, 0x20000, COMMIT_AND_RESERVE, PAGE_OF_DATA);
    return HERE(switched(stack + 0x1F000, on_other_stack, plan)) + 1;
}
