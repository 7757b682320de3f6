// SPDX-License-Identifier: Apache-2.0
// The shapes of stack frames that unwinders get wrong, one function each.
#include <stdarg.h>

#include "shapes.h"

#define alloca __builtin_alloca

static volatile int sink;
static volatile uint32_t seed = 0x1234567;

typedef int (*COMPARE)(const void *, const void *);

RECORDED(void *, __cdecl, bsearch, (const void *key, const void *base, size_t count, size_t size, COMPARE by), TS_FOREIGN)
RECORDED(void, __cdecl, qsort, (void *base, size_t count, size_t size, COMPARE by), TS_FOREIGN)
static int (*ladder_climb)(Plan *plan);

void shapes_start(void) {
    void *runtime = LoadLibraryA("msvcrt.dll");
    ts_real_bsearch = GetProcAddress(runtime, "bsearch");
    ts_real_qsort = GetProcAddress(runtime, "qsort");
    ladder_climb = (int (*)(Plan *))GetProcAddress(LoadLibraryA("ladder.dll"), "ladder_climb");
}

DWORD WINAPI climb(void *plan) {
    ts_begin(ROLE_CRASHES, "climbs to its fault");
    ENTER();
    return (DWORD)HERE(NEXT((Plan *)plan)) + 1;
}

NOINLINE int plain(Plan *plan) {
    ENTER();
    return HERE(NEXT(plan)) + 1;
}

// More live values than there are nonvolatile registers.
NOINLINE int keeps_many(Plan *plan) {
    ENTER();
    uint32_t a = seed * 3, b = seed ^ a, c = seed + b, d = seed * c, e = seed - d, f = seed ^ e, g = seed * f, h = seed + g;
    int result = HERE(NEXT(plan));
    return result + (int)(a ^ (b << 1) ^ (c << 2) ^ (d << 3) ^ (e << 4) ^ (f << 5) ^ (g << 6) ^ (h << 7));
}

// Floating-point values that live across a call: x64 keeps them in xmm6 and up and saves those in the prologue.
NOINLINE int keeps_floats(Plan *plan) {
    ENTER();
    double a = seed, b = a * 1.5, c = b + a, d = c * b, e = d - a, f = e * 0.25;
    int result = HERE(NEXT(plan));
    return result + (int)(a + b * c + d * e + f);
}

static NOINLINE int inside_alloca(Plan *plan, volatile char *block) {
    ENTER();
    block[1] = 2;
    return HERE(NEXT(plan)) + block[1];
}

// A frame register: the stack pointer moves by an amount that only run time knows.
NOINLINE int by_alloca(Plan *plan) {
    ENTER();
    size_t size = 100 + (seed & 0xF00);
    volatile char *block = (volatile char *)alloca(size);
    block[0] = 1;
    int result = HERE(inside_alloca(plan, block));
    volatile char *more = (volatile char *)alloca(size / 2);
    more[0] = block[0];
    return result + more[0];
}

NOINLINE int page_frame(Plan *plan) {
    ENTER();
    volatile char block[6000];
    block[seed & 0xFFF] = 1;
    return HERE(NEXT(plan)) + block[seed & 0xFF];
}

NOINLINE int huge_frame(Plan *plan) {
    ENTER();
    volatile char block[0x14000];
    block[seed & 0xFFFF] = 1;
    return HERE(NEXT(plan)) + block[seed & 0xFF];
}

NOINLINE int realigned(Plan *plan) {
    ENTER();
    volatile uint32_t block[16] __attribute__((aligned(64)));
    block[seed & 7] = 1;
    return HERE(NEXT(plan)) + (int)block[1];
}

static NOINLINE int tail_target(Plan *plan) {
    ENTER();
    return HERE(NEXT(plan)) + 3;
}

// Optimised, this jumps to its callee and is gone from the stack.
static NOINLINE int tail_caller(Plan *plan) {
    ENTER();
    return HERE(tail_target(plan));
}

NOINLINE int tail_call(Plan *plan) {
    ENTER();
    return HERE(tail_caller(plan)) + 1;
}

// The call stands in a part that the compiler takes for unlikely: gcc moves it into a section of its own.
static NOINLINE __attribute__((cold)) int unlikely(Plan *plan, int value) {
    ENTER();
    return HERE(NEXT(plan)) + value;
}

NOINLINE int hot_and_cold(Plan *plan) {
    ENTER();
    uint32_t value = seed, i;
    for (i = 0; i < 16; i++)
        value = value * 33 + i;
    if (__builtin_expect(value != 0, 0)) {
        value ^= seed;
        int result = HERE(unlikely(plan, (int)value));
        sink = result;
        return result + (int)value;
    }
    return (int)value + sink;
}

static NOINLINE int take_any(Plan *plan, ...) {
    ENTER();
    va_list arguments;
    va_start(arguments, plan);
    int first = va_arg(arguments, int);
    int result = HERE(NEXT(plan)) + first + va_arg(arguments, int);
    va_end(arguments);
    return result;
}

NOINLINE int variadic(Plan *plan) {
    ENTER();
    return HERE(take_any(plan, 1, 2, (int)seed, 4, 5)) + 1;
}

static NOINLINE int deeper(Plan *plan, int levels) {
    ENTER();
    if (levels == 0)
        return HERE(NEXT(plan)) + 1;
    return HERE(deeper(plan, levels - 1)) * 3 + levels;
}

NOINLINE int recurses(Plan *plan) {
    ENTER();
    return HERE(deeper(plan, 12)) + 1;
}

NOINLINE int through_dll(Plan *plan) {
    ENTER();
    return HERE(ladder_climb(plan)) + 1;
}

static int compare_found(const void *key, const void *element) {
    ENTER();
    (void)element;
    return HERE(NEXT(*(Plan *const *)key)) + 1;
}

NOINLINE int through_bsearch(Plan *plan) {
    ENTER();
    int numbers[1] = {1};
    return HERE(ts_to_bsearch(&plan, numbers, 1, sizeof numbers[0], compare_found)) != NULL;
}

static int compare_sorted(const void *one, const void *other) {
    ENTER();
    (void)other;
    return HERE(NEXT(*(Plan *const *)one)) + 1;
}

NOINLINE int through_qsort(Plan *plan) {
    ENTER();
    Plan *plans[3] = {plan, plan, plan};
    HERE(ts_to_qsort(plans, 3, sizeof plans[0], compare_sorted));
    return plans[0]->at;
}

#ifndef _WIN64
// One step of each calling convention, with arguments that the callee or the caller takes off the stack.
static NOINLINE int __attribute__((thiscall)) by_thiscall(Plan *plan, int a, int b) {
    ENTER();
    return HERE(NEXT(plan)) + a * b;
}

static NOINLINE int __attribute__((fastcall)) by_fastcall(Plan *plan, int a, int b, int c) {
    ENTER();
    return HERE(by_thiscall(plan, a + 1, b + c)) + c;
}

static NOINLINE int __attribute__((stdcall)) by_stdcall(Plan *plan, int a, int b, int c) {
    ENTER();
    return HERE(by_fastcall(plan, a, b, c + 1)) + a;
}

static NOINLINE int __attribute__((cdecl)) by_cdecl(Plan *plan, int a, int b) {
    ENTER();
    return HERE(by_stdcall(plan, a, b, (int)seed)) + b;
}

NOINLINE int conventions(Plan *plan) {
    ENTER();
    return HERE(by_cdecl(plan, 7, (int)seed)) + 1;
}

// Optimised without a frame pointer, ebp holds a value of the computation across the call: four values go round the
// loop, as many as there are registers that a call preserves.
NOINLINE int ebp_general(Plan *plan) {
    ENTER();
    uint32_t a = seed * 5, b = a ^ seed, c = b * a;
    ts_entry->line = __LINE__ + 2;
    do {
        a += (uint32_t)NEXT(plan) ^ c;
        b = b * 33 + a;
        c ^= b >> 3;
    } while ((a ^ b ^ c) & 0x10);
    return (int)(a * b ^ c);
}
#endif
