// SPDX-License-Identifier: Apache-2.0
// A DLL that is unloaded while its function is on a stack.
#include "shapes.h"

__declspec(dllexport) int gone_climb(Plan *plan);

int gone_climb(Plan *plan) {
    ENTER();
    volatile char block[100];
    block[0] = 5;
    return HERE(NEXT(plan)) + block[0];
}
