// SPDX-License-Identifier: Apache-2.0
// Prints the committed memory of the process whose PID is given, as Windows (here Wine) sees it: base, size, protection and
// type in hex, one range a line, and `end`. From outside, /proc does not tell memory that the program has from Linux'.
#define WIN32_LEAN_AND_MEAN
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

int main(int count, char **arguments) {
    HANDLE process = count > 1 ? OpenProcess(PROCESS_QUERY_INFORMATION, 0, atoi(arguments[1])) : NULL;
    MEMORY_BASIC_INFORMATION range;
    ULONG_PTR at = 0;
    if (!process)
        return 1;
    while (VirtualQueryEx(process, (void *)at, &range, sizeof range) == sizeof range) {
        if (range.State == MEM_COMMIT)
            printf("%llx %llx %lx %lx\n", (ULONGLONG)(ULONG_PTR)range.BaseAddress, (ULONGLONG)range.RegionSize,
                   range.Protect, range.Type);
        at = (ULONG_PTR)range.BaseAddress + range.RegionSize;
        if (!at)
            break;
    }
    puts("end");
    return 0;
}
