// SPDX-License-Identifier: Apache-2.0
// Functions written into private memory, as a JIT compiler does. Each is assembled here between two labels and copied:
// it uses no address relative to itself. The copies note themselves, with the return address and the slot that they see.
#include "rough.h"

#ifdef _WIN64
#define SYMBOL(name) #name
#else
#define SYMBOL(name) "_" #name
#endif
#define LABEL(name) ".globl " SYMBOL(name) "\n" SYMBOL(name) ":\n\t"
#define TEMPLATE(name, code) \
    extern uint8_t name##_begins[], name##_ends[]; \
    __attribute__((used)) char ts_name_##name[] = #name; \
    __asm__(".text\n" LABEL(name##_begins) code "\n" LABEL(name##_ends) "nop\n")
#define NOTED_TEMPLATE(name, code) TEMPLATE(name, TS_TRAMPOLINE(name, 2, code))

// `framed` has a frame pointer. `listed` has none, but on x64 an entry in a dynamic function table. `bare` has neither.
// `passing` is a thunk: it jumps to the next rung and leaves nothing on the stack. `faulty` faults itself.
#ifdef _WIN64
#define NEXT_RUNG "movslq (%rcx), %rax\n\tincl (%rcx)\n\t"
#define CALL_NEXT NEXT_RUNG "callq *8(%rcx,%rax,8)\n\t"
extern uint8_t listed_pushed[], listed_allocated[];
NOTED_TEMPLATE(framed, "pushq %rbp\n\tmovq %rsp, %rbp\n\tsubq $48, %rsp\n\t" CALL_NEXT
                       "addq $48, %rsp\n\tpopq %rbp\n\tretq");
NOTED_TEMPLATE(listed, "pushq %rbx\n\t" LABEL(listed_pushed) "subq $32, %rsp\n\t" LABEL(listed_allocated)
                       "movl $77, %ebx\n\t" CALL_NEXT "addl %ebx, %eax\n\taddq $32, %rsp\n\tpopq %rbx\n\tretq");
NOTED_TEMPLATE(bare, "subq $56, %rsp\n\tmovq $1, 32(%rsp)\n\tmovq $2, 40(%rsp)\n\tmovq $3, 48(%rsp)\n\t" CALL_NEXT
                     "addq $56, %rsp\n\tretq");
NOTED_TEMPLATE(faulty, "pushq %rbp\n\tmovq %rsp, %rbp\n\tsubq $32, %rsp\n\tmovl $16, %eax\n\tmovl (%rax), %eax\n\t"
                       "addq $32, %rsp\n\tpopq %rbp\n\tretq");
TEMPLATE(passing, NEXT_RUNG "jmpq *8(%rcx,%rax,8)");
#else
#define CALL_NEXT "pushl %ecx\n\tmovl (%ecx), %eax\n\tincl (%ecx)\n\tcalll *4(%ecx,%eax,4)\n\taddl $4, %esp\n\t"
NOTED_TEMPLATE(framed, "pushl %ebp\n\tmovl %esp, %ebp\n\tsubl $24, %esp\n\tmovl 8(%ebp), %ecx\n\t" CALL_NEXT
                       "movl %ebp, %esp\n\tpopl %ebp\n\tretl");
NOTED_TEMPLATE(listed, "pushl %ebp\n\tmovl %esp, %ebp\n\tpushl %ebx\n\tmovl $77, %ebx\n\tmovl 8(%ebp), %ecx\n\t"
                       CALL_NEXT "addl %ebx, %eax\n\tpopl %ebx\n\tpopl %ebp\n\tretl");
NOTED_TEMPLATE(bare, "subl $16, %esp\n\tmovl $1, (%esp)\n\tmovl $2, 4(%esp)\n\tmovl $3, 8(%esp)\n\tmovl $4, 12(%esp)\n\t"
                     "movl 20(%esp), %ecx\n\t" CALL_NEXT "addl $16, %esp\n\tretl");
NOTED_TEMPLATE(faulty, "pushl %ebp\n\tmovl %esp, %ebp\n\tsubl $16, %esp\n\tmovl $16, %eax\n\tmovl (%eax), %eax\n\t"
                       "movl %ebp, %esp\n\tpopl %ebp\n\tretl");
TEMPLATE(passing, "movl 4(%esp), %ecx\n\tmovl (%ecx), %eax\n\tincl (%ecx)\n\tjmpl *4(%ecx,%eax,4)");
#endif

uint8_t *code_memory(uintptr_t where) {
    uint8_t *memory = VirtualAlloc((void *)where, 0x1000, COMMIT_AND_RESERVE, PAGE_OF_CODE);
    if (memory == NULL)
        ExitProcess(3);
    return memory;
}

static uint8_t *copy(uint8_t **room, const uint8_t *begins, const uint8_t *ends) {
    uint8_t *target = *room;
    while (begins < ends)
        *(*room)++ = *begins++;
    *room = target + ((*room - target + 15) & ~15);
    return target;
}
#define COPY(name) ((RUNG)(uintptr_t)copy(&room, name##_begins, name##_ends))

#ifdef _WIN64
typedef struct Listing {
    uint32_t begins, ends, unwind;
    uint8_t version, prologue, codes, frame, code[4];
} Listing;

// push rbx; sub rsp, 32
static void list(uint8_t *memory, uint8_t *function, uint8_t *room) {
    typedef BOOL(WINAPI * ADD)(void *entries, DWORD count, uint64_t base);
    Listing *listing = (Listing *)room;
    uint8_t pushed = (uint8_t)(listed_pushed - listed_begins), allocated = (uint8_t)(listed_allocated - listed_begins);
    Listing filled = {(uint32_t)(function - memory), (uint32_t)(function - memory + (listed_ends - listed_begins)),
        (uint32_t)((uint8_t *)&listing->version - memory), 1, allocated, 2, 0, {allocated, 0x32, pushed, 0x30}};
    *listing = filled;
    ((ADD)(uintptr_t)GetProcAddress(GetModuleHandleA("kernel32"), "RtlAddFunctionTable"))(listing, 1, (uint64_t)memory);
}
#endif

Generated generate(uintptr_t where) {
    uint8_t *memory = code_memory(where), *room = memory;
    Generated made;
    made.framed = COPY(framed);
    made.listed = COPY(listed);
    made.bare = COPY(bare);
    made.passing = COPY(passing);
    made.faulty = COPY(faulty);
#ifdef _WIN64
    list(memory, (uint8_t *)(uintptr_t)made.listed, room);
#endif
    return made;
}
