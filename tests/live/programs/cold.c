// SPDX-License-Identifier: Apache-2.0
// Functions that gcc -O2 splits: what leads to a call of a cold function is unlikely, and moves to a section of its own
// (.text.unlikely), where the function goes on with the frame that it has.
#include "rough.h"

static volatile uintptr_t small = 16;
static volatile uint32_t seed = 0x1234567;
static volatile int sink;

static NOINLINE __attribute__((cold)) void seldom(uint32_t value) {
    sink = (int)value;
}

NOINLINE int fault_in_cold(Plan *plan) {
    ENTER();
    uint32_t value = seed, other = value ^ 5, i;
    for (i = 0; i < 16; i++)
        value = value * 33 + other;
    if (value != 0) {
        seldom(value);
        sink = *(volatile int *)small;
        return (int)(value + other) + sink;
    }
    return plan->at + (int)other;
}

NOINLINE int through_cold(Plan *plan) {
    ENTER();
    uint32_t value = seed, other = value ^ 9, i;
    for (i = 0; i < 16; i++)
        value = value * 65 + other;
    if (value != 0) {
        seldom(value);
        int result = HERE(NEXT(plan));
        return (int)(value + other) + result;
    }
    return plan->at + (int)other;
}
