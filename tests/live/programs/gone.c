// SPDX-License-Identifier: Apache-2.0
// A DLL that is unloaded while its function is on a stack. The function leaves no remains of earlier calls in its frame:
// with its unwind data gone, nothing would tell them from its return address.
#include "shapes.h"

__declspec(dllexport) int gone_climb(Plan *plan);

int gone_climb(Plan *plan) {
    ENTER();
    volatile char block[100];
    int i;
    for (i = 0; i < 100; i++)
        block[i] = 5;
    return HERE(NEXT(plan)) + block[0];
}
