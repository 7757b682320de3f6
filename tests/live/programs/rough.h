// SPDX-License-Identifier: Apache-2.0
// Rungs (see shapes.h) that make the stacks that no compiler alone makes: generated code, hooks, strayed calls, stacks
// of one's own, and functions in two parts.
#ifndef ROUGH_H
#define ROUGH_H

#include "shapes.h"

enum { COMMIT_AND_RESERVE = 0x3000, RELEASE = 0x8000 };
enum { PAGE_OF_DATA = 0x04, PAGE_OF_CODE = 0x40 };

// --- generated.c: code in private memory ---

// The rungs that were written into one block of private memory.
typedef struct Generated {
    RUNG framed, listed, bare, passing, faulty;
} Generated;

// Returns memory that can be run, at `where` or, with 0, where there is room. Ends the process if there is none.
uint8_t *code_memory(uintptr_t where);
// Writes the rungs into memory at `where`.
Generated generate(uintptr_t where);

// --- hooks.c: functions whose first instructions are a jump to a hook ---

void hooks_start(void);
int calls_patched(Plan *);
int faults_in_trampoline(Plan *);
int waits_in_stub(Plan *);
long WINAPI wait_in_filter_by_stub(EXCEPTION_POINTERS *);

// --- strayed.c ---

int through_thunk_unmapped(Plan *);
int through_thunk_data(Plan *);
int directly_through_thunk(Plan *);
int through_gone(Plan *);
int unloads(Plan *);
int on_fiber(Plan *);
int on_own_stack(Plan *);

// --- cold.c ---

int fault_in_cold(Plan *);
int through_cold(Plan *);

// --- handlers.c: what a handler may do instead of coming back ---

// Waits with its stack noted.
int sleeps(Plan *);
// Hands every exception to the system's filter at once, as crash reporters do. On x64 it is the only way there from a
// stack that Wine cannot unwind.
void hand_over_at_once(void);
void wait_in_vectored_handler(void);
void handlers_start(void);
int fault_with_waiting_filter(Plan *);
void finally_start(void);

#endif
