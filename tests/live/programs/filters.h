// SPDX-License-Identifier: Apache-2.0
// What a top-level exception filter may do instead of ending the process.
#ifndef FILTERS_H
#define FILTERS_H

#include "truth.h"

void filters_start(void);
long WINAPI sleep_in_filter(EXCEPTION_POINTERS *);
long WINAPI abort_in_filter(EXCEPTION_POINTERS *);
long WINAPI fault_in_top_filter(EXCEPTION_POINTERS *);

#endif
