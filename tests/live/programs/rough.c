// SPDX-License-Identifier: Apache-2.0
// rough.exe SCENARIO: stacks with code, calls and handlers that compilers alone do not make. Starts the decoys, then the
// threads of the scenario.
#include "filters.h"
#include "rough.h"

void faults_start(void);

static DWORD WINAPI climb_and_wait(void *plan) {
    ts_begin(ROLE_WALKED, "climbs to a wait");
    ENTER();
    return (DWORD)HERE(NEXT((Plan *)plan)) + 1;
}

static void spawn_all(THREAD_PROC procedure, Plan *plans, size_t size) {
    size_t i;
    for (i = 0; i < size / sizeof *plans; i++)
        ts_spawn(procedure, &plans[i]);
}
#define CRASH(plans) spawn_all(climb, plans, sizeof plans)
#define WAIT(plans) spawn_all(climb_and_wait, plans, sizeof plans)

// 8 MiB and 128 MiB from the program, and more than 2 GiB. A 32-bit process has no choice.
#ifdef _WIN64
static const uintptr_t near_image = 0x140800000, far_from_image = 0x148000000, farther_away = 0x200000000;
#else
static const uintptr_t near_image = 0, far_from_image = 0, farther_away = 0;
#endif

static void start_generated(void) {
    static Plan crashes[6], waits[2];
    Generated near = generate(near_image), far = generate(far_from_image), farther = generate(farther_away);
    Plan made[] = {
        {0, {plain, near.framed, keeps_many, near.framed, by_alloca, fault_read}},
        {0, {plain, far.framed, by_alloca, far.framed, far.framed, keeps_many, leaf_read}},
        {0, {keeps_many, farther.framed, plain, farther.framed, fault_execute}},
        {0, {keeps_floats, far.listed, plain, farther.listed, keeps_many, fault_write}},
        {0, {by_alloca, far.bare, plain, far.framed, keeps_many, farther.bare, plain, divide}},
        {0, {plain, far.framed, far.passing, keeps_many, farther.framed, farther.faulty}},
    };
    Plan made_waits[] = {
        {0, {plain, near.framed, far.framed, keeps_many, farther.framed, sleeps}},
        {0, {by_alloca, far.listed, keeps_many, farther.bare, plain, sleeps}},
    };
    size_t i;
    for (i = 0; i < sizeof crashes / sizeof *crashes; i++)
        crashes[i] = made[i];
    for (i = 0; i < sizeof waits / sizeof *waits; i++)
        waits[i] = made_waits[i];
    hand_over_at_once();
    CRASH(crashes);
    WAIT(waits);
}

static Plan hooked[] = {
    {0, {plain, calls_patched, keeps_many, by_alloca, fault_read}},
    {0, {keeps_many, plain, faults_in_trampoline}},
    {0, {by_alloca, keeps_many, raise_software}},
};
static Plan hooked_waits[] = {
    {0, {plain, calls_patched, by_alloca, keeps_many, sleeps}},
    {0, {keeps_many, by_alloca, waits_in_stub}},
};
static Plan strayed[] = {
    {0, {plain, keeps_many, through_thunk_unmapped}},
    {0, {by_alloca, plain, through_thunk_data}},
    {0, {keeps_many, plain, directly_through_thunk}},
    {0, {plain, through_gone, unloads}},
    {0, {plain, on_fiber, keeps_many, by_alloca, fault_read}},
};
static Plan strayed_waits[] = {{0, {plain, on_fiber, by_alloca, keeps_many, sleeps}}};
static Plan own_stack[] = {
    {0, {plain, keeps_many, on_own_stack, by_alloca, keeps_many, fault_read}},
    {0, {by_alloca, on_own_stack, plain, leaf_read}},
};
static Plan in_cold[] = {
    {0, {plain, keeps_many, fault_in_cold}},
    {0, {keeps_many, through_cold, plain, through_cold, fault_in_cold}},
};
static Plan in_vectored[] = {{0, {plain, by_alloca, fault_read}}, {0, {keeps_many, raise_software}}};
#ifdef __clang__
static Plan in_filter[] = {{0, {plain, keeps_many, fault_with_waiting_filter}}};
#endif

int main(void) {
    ts_start();
    shapes_start();
    faults_start();
    filters_start();
    handlers_start();
    ts_decoys();
    if (ts_argument("generated"))
        start_generated();
    if (ts_argument("hooked")) {
        hooks_start();
        SetUnhandledExceptionFilter(wait_in_filter_by_stub);
        CRASH(hooked);
        WAIT(hooked_waits);
    }
    if (ts_argument("strayed")) {
        CRASH(strayed);
        WAIT(strayed_waits);
    }
    if (ts_argument("switched")) {
        hand_over_at_once();
        CRASH(own_stack);
    }
    if (ts_argument("cold"))
        CRASH(in_cold);
    if (ts_argument("vectored")) {
        wait_in_vectored_handler();
        CRASH(in_vectored);
    }
#ifdef __clang__
    if (ts_argument("seh")) {
        finally_start();
        CRASH(in_filter);
    }
#endif
    ts_ready();
    // Not by Sleep, which may be hooked.
    WaitForSingleObject(CreateEventA(NULL, 1, 0, NULL), INFINITE);
    return 0;
}
