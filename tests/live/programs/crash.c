// SPDX-License-Identifier: Apache-2.0
// crash.exe SCENARIO: starts the decoys, then the crashing threads of the scenario.
#include "filters.h"
#include "shapes.h"

void faults_start(void);
void deadlock_start(void);

static Plan plans[] = {
    {0, {plain, by_alloca, keeps_many, leaf_read}},
    {0, {keeps_floats, page_frame, variadic, fault_read}},
    {0, {huge_frame, recurses, realigned, fault_write}},
    {0, {through_dll, tail_call, by_alloca, divide}},
    {0, {through_bsearch, hot_and_cold, through_qsort, call_null}},
    {0, {realigned, through_dll, by_alloca, keeps_floats, keeps_many, tail_call, raise_software}},
#ifdef _WIN64
    {0, {keeps_many, chained, split, by_alloca, chained, fault_read}},
    {0, {split, through_qsort, page_frame, split, leaf_read}},
#else
    {0, {ebp_general, conventions, keeps_many, ebp_general, leaf_read}},
    {0, {conventions, realigned, ebp_general, variadic, conventions, raise_software}},
#endif
};

typedef struct Scenario {
    const char *name;
    FILTER filter;
    Plan plan;
} Scenario;

static Scenario scenarios[] = {
    {"read", NULL, {0, {plain, by_alloca, through_dll, keeps_many, fault_read}}},
    {"leaf", NULL, {0, {by_alloca, tail_call, keeps_floats, leaf_read}}},
    {"write", sleep_in_filter, {0, {keeps_many, page_frame, through_bsearch, fault_write}}},
    {"execute", NULL, {0, {realigned, variadic, fault_execute}}},
    {"null", NULL, {0, {keeps_many, tail_call, by_alloca, call_null}}},
    {"garbage", sleep_in_filter, {0, {through_dll, huge_frame, call_garbage}}},
    {"divide", NULL, {0, {recurses, keeps_floats, divide}}},
    {"overflow", sleep_in_filter, {0, {plain, keeps_many, overflow}}},
    {"probe", sleep_in_filter, {0, {keeps_many, by_alloca, overflow_probed}}},
    {"raise", NULL, {0, {by_alloca, through_qsort, keeps_many, raise_software}}},
#ifdef __clang__
    {"filter", NULL, {0, {plain, by_alloca, fault_in_filter, fault_write}}},
#endif
    {"topfilter", fault_in_top_filter, {0, {keeps_many, through_dll, fault_read}}},
    {"abort", abort_in_filter, {0, {through_dll, by_alloca, plain, fault_read}}},
    {"shutdown", NULL, {0, {keeps_many, through_dll, shut_down}}},
};

int main(void) {
    unsigned i;
    ts_start();
    shapes_start();
    faults_start();
    filters_start();
    ts_decoys();
    if (ts_argument("shapes"))
        for (i = 0; i < sizeof plans / sizeof plans[0]; i++)
            ts_spawn(climb, &plans[i]);
    for (i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        if (ts_argument(scenarios[i].name)) {
            if (scenarios[i].filter != NULL)
                SetUnhandledExceptionFilter(scenarios[i].filter);
            ts_spawn(climb, &scenarios[i].plan);
        }
    if (ts_argument("deadlock"))
        deadlock_start();
    ts_ready();
    Sleep(INFINITE);
    return 0;
}
