// SPDX-License-Identifier: Apache-2.0
// Rungs: functions of many shapes, each of which calls the next of a plan. A crash is a plan whose last rung faults.
#ifndef SHAPES_H
#define SHAPES_H

#include "truth.h"

typedef struct Plan Plan;
typedef int (*RUNG)(Plan *);
struct Plan {
    int at;
    RUNG rungs[16];
};

#ifdef __cplusplus
extern "C" {
#endif

void shapes_start(void);
DWORD WINAPI climb(void *plan);

int plain(Plan *);
int keeps_many(Plan *);
int keeps_floats(Plan *);
int by_alloca(Plan *);
int page_frame(Plan *);
int huge_frame(Plan *);
int realigned(Plan *);
int tail_call(Plan *);
int hot_and_cold(Plan *);
int variadic(Plan *);
int recurses(Plan *);
int through_dll(Plan *);
int through_bsearch(Plan *);
int through_qsort(Plan *);
#ifdef _WIN64
int chained(Plan *);
int split(Plan *);
#else
int conventions(Plan *);
int ebp_general(Plan *);
#endif

void prepare(volatile int *place);
int leaf_read(Plan *);
int fault_read(Plan *);
int fault_write(Plan *);
int fault_execute(Plan *);
int call_null(Plan *);
int call_garbage(Plan *);
int divide(Plan *);
int overflow(Plan *);
int overflow_probed(Plan *);
int raise_software(Plan *);
int fault_in_filter(Plan *);
int shut_down(Plan *);

#define NEXT(plan) ((plan)->rungs[(plan)->at++](plan))

#ifdef __cplusplus
}
#endif
#endif
