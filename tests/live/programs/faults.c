// SPDX-License-Identifier: Apache-2.0
// The last rung of a crash: one function for each kind of fault.
#include "shapes.h"

RECORDED(void, WINAPI, RaiseException, (DWORD code, DWORD flags, DWORD count, const uintptr_t *arguments), TS_DIRECT)

static uint8_t data_not_code[64] = {0xC3};
static volatile uintptr_t small = 16, zero;
static volatile uintptr_t garbage = 0x12345678;
static volatile int sink;

// A function that calls has a frame, which the compiler would not give to one that only the assembler calls from.
NOINLINE void prepare(volatile int *place) {
    *place = 1;
}

void faults_start(void) {
    ts_real_RaiseException = (void *)GetProcAddress(GetModuleHandleA("kernel32"), "RaiseException");
}

// Inlined everywhere: the fault has a frame of its own inside leaf_read's, which only a PDB can show.
static inline __attribute__((always_inline)) int value_at(int place) {
    return *(volatile int *)(uintptr_t)place;
}

NOINLINE int leaf_read(Plan *plan) {
    ENTER();
    return value_at(plan->at) + 1;
}

NOINLINE int fault_read(Plan *plan) {
    ENTER();
    volatile int kept[20];
    kept[0] = plan->at;
    sink = *(volatile int *)small;
    return kept[0] + sink;
}

NOINLINE int fault_write(Plan *plan) {
    ENTER();
    *(volatile int *)(small + 0x30) = plan->at;
    return plan->at + sink;
}

NOINLINE int fault_execute(Plan *plan) {
    ENTER();
    volatile int kept;
    prepare(&kept);
    ts_entry->line = __LINE__ + 1;
    CALL_NOWHERE(data_not_code, "r");
    return kept + plan->at;
}

NOINLINE int call_null(Plan *plan) {
    ENTER();
    volatile int kept;
    prepare(&kept);
    ts_entry->line = __LINE__ + 1;
    CALL_NOWHERE(zero, "m");
    return kept + plan->at;
}

NOINLINE int call_garbage(Plan *plan) {
    ENTER();
    volatile int kept;
    prepare(&kept);
    ts_entry->line = __LINE__ + 1;
    CALL_NOWHERE(garbage, "r");
    return kept + plan->at;
}

NOINLINE int divide(Plan *plan) {
    ENTER();
    return plan->at / (int)zero + sink;
}

static NOINLINE int overflow_level(Plan *plan, int level) {
    ENTER();
    volatile char block[3000];
    if (level > 100000)
        return level;
    block[1500] = (char)level;
    return HERE(overflow_level(plan, level + 1)) + block[plan->at];
}

// Windows moves the guard page up by what the thread asks for; Wine leaves it at the very end, where a handler has no
// room. So it is moved here: TEB.DeallocationStack is the lowest address of the stack.
static NOINLINE void leave_room_for_handler(void) {
    DWORD room = 0x10000, old;
    uint8_t *lowest;
#ifdef _WIN64
    __asm__ volatile("movq %%gs:0x1478, %0" : "=r"(lowest));
#else
    __asm__ volatile("movl %%fs:0xE0C, %0" : "=r"(lowest));
#endif
    SetThreadStackGuarantee(&room);
    VirtualProtect(lowest + 0x8000, 0x1000, 0x104, &old); // PAGE_READWRITE | PAGE_GUARD
}

NOINLINE int overflow(Plan *plan) {
    ENTER();
    leave_room_for_handler();
    return HERE(overflow_level(plan, 0)) + 1;
}

// Frames of more than a page are probed by a helper that the prologue calls: the fault is in the helper.
static NOINLINE int probed_level(Plan *plan, int level) {
    ENTER();
    volatile char block[6000];
    if (level > 100000)
        return level;
    block[1500] = (char)level;
    return HERE(probed_level(plan, level + 1)) + block[plan->at];
}

NOINLINE int overflow_probed(Plan *plan) {
    ENTER();
    leave_room_for_handler();
    return HERE(probed_level(plan, 0)) + 1;
}

NOINLINE int raise_software(Plan *plan) {
    ENTER();
    uintptr_t arguments[3] = {1, (uintptr_t)plan, 0x1234};
    HERE(ts_to_RaiseException(0xE0001234, 0, 3, arguments));
    return sink + plan->at;
}

#ifdef __clang__
// Faults when first asked. Its own fault asks it again, since the frame that it filters for is still active.
static NOINLINE long filter_that_faults(unsigned long code) {
    static volatile int asked;
    if (asked++)
        return EXCEPTION_CONTINUE_SEARCH;
    ENTER();
    sink = *(volatile int *)(small + (code & 8));
    return HERE(EXCEPTION_EXECUTE_HANDLER) + sink;
}

static NOINLINE int fault_under_filter(Plan *plan) {
    ENTER();
    __try {
        return HERE(fault_write(plan));
    } __except (filter_that_faults(_exception_code())) {
        return sink;
    }
}

NOINLINE int fault_in_filter(Plan *plan) {
    ENTER();
    return HERE(fault_under_filter(plan)) + 1;
}
#endif

NOINLINE int shut_down(Plan *plan) {
    ENTER();
    ts_log->role = ROLE_SHUTS_DOWN;
    void(__cdecl * leave)(int) = (void(__cdecl *)(int))GetProcAddress(LoadLibraryA("mscoree.dll"), "CorExitProcess");
    HERE(leave(plan->at));
    return sink;
}
