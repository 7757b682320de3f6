// SPDX-License-Identifier: Apache-2.0
// A DLL in the middle of a stack: called by the program, calls back into it.
#include "shapes.h"

static NOINLINE int ladder_inner(Plan *plan, int weight) {
    ENTER();
    volatile char block[300];
    block[0] = (char)weight;
    return HERE(NEXT(plan)) + block[0];
}

__declspec(dllexport) int ladder_climb(Plan *plan);

int ladder_climb(Plan *plan) {
    ENTER();
    return HERE(ladder_inner(plan, 5)) + 1;
}
