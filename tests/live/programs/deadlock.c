// SPDX-License-Identifier: Apache-2.0
// Threads that wait for critical sections: two for each other's, a third for one of those.
#include "truth.h"

static CRITICAL_SECTION sections[2];
static volatile long holding, begun;

typedef struct Order {
    int first, second; // -1: none
    const char *note;
} Order;

static Order orders[] = {
    {0, 1, "deadlock: has section 0, waits for section 1"},
    {1, 0, "deadlock: has section 1, waits for section 0"},
    {-1, 0, "deadlock: waits for section 0"},
};

static DWORD WINAPI lock_both(void *argument) {
    const Order *order = argument;
    ts_begin(ROLE_WAITS, order->note);
    if (order->first >= 0) {
        EnterCriticalSection(&sections[order->first]);
        __sync_fetch_and_add(&holding, 1);
    }
    while (holding < 2)
        Sleep(10);
    __sync_fetch_and_add(&begun, 1);
    EnterCriticalSection(&sections[order->second]);
    LeaveCriticalSection(&sections[order->second]);
    return 0;
}

void deadlock_start(void) {
    unsigned i;
    for (i = 0; i < 2; i++)
        InitializeCriticalSection(&sections[i]);
    for (i = 0; i < 3; i++)
        ts_spawn(lock_both, &orders[i]);
    while (begun < 3)
        Sleep(10);
}
