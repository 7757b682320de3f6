// SPDX-License-Identifier: Apache-2.0
// The "debugger" that AeDebug starts: never attaches, and ends with the process it was started for.
#include "win.h"

int main(void) {
    const char *line = GetCommandLineA();
    DWORD id = 0;
    while (*line && *line != ' ')
        line++;
    for (line++; *line >= '0' && *line <= '9'; line++)
        id = id * 10 + (DWORD)(*line - '0');
    WaitForSingleObject(OpenProcess(0x100000, 0, id), INFINITE);
    return 0;
}
