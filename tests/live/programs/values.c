// SPDX-License-Identifier: Apache-2.0
// values.exe: functions that note the values of their parameters and locals before they call on, and crash threads whose
// stacks are made of them. What a PDB and the walk give for these variables has to be what was noted.
//
// A value is noted as a copy, so that noting it does not force the variable into memory. Some variables are used after
// the call and some are not: those the compiler forgets, which is what the report has to say.
#include "shapes.h"

#define TS_VALUES 256
enum { VALUE_INTEGER = 1, VALUE_FLOAT = 2, VALUE_TEXT = 3, VALUE_OF_PARAMETER = 0x100 };

// `slot` is that of the function's return address, and tells the frame. Of a text, `bytes` holds its address.
typedef struct TsValue {
    uint64_t slot, function, name, kind, size;
    uint8_t bytes[16];
} TsValue;

__declspec(dllexport) struct TsValues {
    uint64_t count;
    TsValue entries[TS_VALUES];
} ts_values;
static volatile long next_value;

typedef __WCHAR_TYPE__ WIDE;
typedef enum Mood { CALM = 1, ANGRY = 70000 } Mood;
typedef struct Pair { int x, y; } Pair;
typedef struct Holder { void *held; } Holder;
typedef struct Record { int id; Pair place; Mood mood; char tag[8]; } Record;

static volatile uint32_t seed = 0x1234567;
static volatile int sink;

// Functions with parameters are visible outside: of one that is not, the compiler changes the parameters as it likes.
static NOINLINE void note(TsEntry *entry, const char *function, const char *name, int kind, const void *bytes, size_t size) {
    TsValue *value = &ts_values.entries[__sync_fetch_and_add(&next_value, 1)];
    size_t i;
    value->slot = entry->slot;
    value->function = (uintptr_t)function;
    value->name = (uintptr_t)name;
    value->kind = (uint64_t)kind;
    value->size = size;
    for (i = 0; i < size; i++)
        value->bytes[i] = ((const uint8_t *)bytes)[i];
    __sync_fetch_and_add((volatile long *)&ts_values.count, 1);
}

#define NOTE(variable, kind) \
    do { \
        __typeof__(variable) noted = (variable); \
        note(ts_entry, __func__, #variable, kind, &noted, sizeof noted); \
    } while (0)
#define PARAMETER(variable) NOTE(variable, VALUE_INTEGER | VALUE_OF_PARAMETER)
#define LOCAL(variable) NOTE(variable, VALUE_INTEGER)
#define LOCAL_FLOAT(variable) NOTE(variable, VALUE_FLOAT)
#define NOTE_TEXT(variable, shown, kind) \
    do { \
        const char *noted = (shown); \
        note(ts_entry, __func__, #variable, VALUE_TEXT | (kind), &noted, sizeof noted); \
    } while (0)
#define PARAMETER_TEXT(variable, shown) NOTE_TEXT(variable, shown, VALUE_OF_PARAMETER)
#define LOCAL_TEXT(variable, shown) NOTE_TEXT(variable, shown, 0)

NOINLINE int takes_integers(Plan *plan, int count, unsigned char flag, short small, int64_t wide, uint32_t mask) {
    ENTER();
    int doubled = count * 2 + (int)(seed & 1);
    PARAMETER(plan);
    PARAMETER(count);
    PARAMETER(flag);
    PARAMETER(small);
    PARAMETER(wide);
    PARAMETER(mask);
    LOCAL(doubled);
    int result = HERE(NEXT(plan));
    return result + count + flag + small + (int)wide + (int)mask + doubled + plan->at;
}

int integers(Plan *plan) {
    ENTER();
    return HERE(takes_integers(plan, 7 + (int)(seed & 0xFF), 200, -5, 0x123456789ALL + seed, 0xDEADBEEF)) + 1;
}

// Nothing is used after the call but the sum: what the compiler keeps is its own affair.
NOINLINE int drops_most(Plan *plan, int first, int unused, int last) {
    ENTER();
    int sum = first + last;
    PARAMETER(plan);
    PARAMETER(first);
    PARAMETER(last);
    LOCAL(sum);
    (void)unused;
    return HERE(NEXT(plan)) + sum;
}

int drops(Plan *plan) {
    ENTER();
    return HERE(drops_most(plan, (int)seed, 5, 6)) + 1;
}

NOINLINE int takes_text(Plan *plan, const char *text, const WIDE *wide, char letter, _Bool is_set, Mood mood) {
    ENTER();
    char name[8] = {'n', 'a', 'm', 'e', (char)('0' + plan->at % 10), 0};
    volatile char *written = name;
    written[4] = '!';
    PARAMETER(text);
    PARAMETER(wide);
    PARAMETER(letter);
    PARAMETER(is_set);
    PARAMETER(mood);
    LOCAL_TEXT(name, "\"name!\"");
    int result = HERE(NEXT(plan));
    return result + text[0] + wide[0] + letter + is_set + (int)mood + written[0];
}

int texts(Plan *plan) {
    static const WIDE broad[] = {'w', 'i', 'd', 'e', 0};
    ENTER();
    return HERE(takes_text(plan, "narrow", broad, 'A', (seed & 1) != 0, (seed & 2) ? ANGRY : CALM)) + 1;
}

NOINLINE int takes_floats(Plan *plan, double first, float second) {
    ENTER();
    double third = first * 1.5;
    NOTE(first, VALUE_FLOAT | VALUE_OF_PARAMETER);
    NOTE(second, VALUE_FLOAT | VALUE_OF_PARAMETER);
    LOCAL_FLOAT(third);
    int result = HERE(NEXT(plan));
    return result + (int)(first + second + third);
}

int floats(Plan *plan) {
    ENTER();
    return HERE(takes_floats(plan, seed * 0.25, (float)(seed & 0xFF) + 0.5f)) + 1;
}

NOINLINE int takes_structures(Plan *plan, Pair pair, const Pair *other, Holder holder, const Record *record) {
    ENTER();
    Record own = {1, {2, 3}, CALM, "tag"};
    volatile Record *kept = &own;
    kept->place.y = -4;
    PARAMETER_TEXT(pair, "{x=11 (0xb), y=-12 (0xfffffff4)}");
    PARAMETER(other);
    PARAMETER(holder);
    PARAMETER(record);
    LOCAL_TEXT(own, "{id=1, place={x=2, y=-4}, mood=CALM (1), tag=\"tag\"}");
    int result = HERE(NEXT(plan));
    return result + pair.x + pair.y + other->x + (holder.held != NULL) + record->id + kept->id;
}

int structures(Plan *plan) {
    ENTER();
    Pair pair = {11, -12}, other = {(int)seed, 2};
    Record record = {(int)seed, {5, 6}, ANGRY, "x"};
    Holder holder = {(void *)(uintptr_t)0x1000};
    volatile Pair *used = &other;
    sink = used->y;
    return HERE(takes_structures(plan, pair, &other, holder, &record)) + 1;
}

static inline __attribute__((always_inline)) int inlined_step(Plan *plan, TsEntry *ts_entry, int depth, uint32_t key) {
    uint32_t mixed = (uint32_t)depth ^ key;
    PARAMETER(depth);
    PARAMETER(key);
    LOCAL(mixed);
    int result = NEXT(plan); // the line of the caller's frame is that of the inlined call
    return result + depth + (int)(mixed * key);
}

int inlines(Plan *plan) {
    static int calls = 40;
    ENTER();
    int level = (int)(seed & 0xF);
    calls += 2;
    LOCAL(level);
    return HERE(inlined_step(plan, ts_entry, level + 1, seed * 3)) + level + calls;
}

// The variables of the block that made the call are there, those of the other are not.
int blocks(Plan *plan) {
    ENTER();
    int i, total = 0, result = 0;
    for (i = 0; i < 6; i++) {
        int square = i * i + (int)(seed & 1);
        total += square;
        if (square > 9) {
            int deep = square * 3;
            LOCAL(i);
            LOCAL(square);
            LOCAL(deep);
            LOCAL(total);
            result += HERE(NEXT(plan));
            total += deep;
        } else {
            int shallow = square + 1;
            total -= shallow;
        }
    }
    return result + total;
}

// The stack is aligned, so that locals and parameters are reached by different registers.
int aligned(Plan *plan) {
    ENTER();
    volatile uint32_t block[16] __attribute__((aligned(64)));
    int before = (int)seed + 1;
    block[seed & 7] = 1;
    PARAMETER(plan);
    LOCAL(before);
    int result = HERE(NEXT(plan));
    return result + before + (int)block[1] + plan->at;
}

// The stack pointer moves by an amount that only run time knows.
int moved(Plan *plan) {
    ENTER();
    size_t size = 100 + (seed & 0xF00);
    volatile char *block = (volatile char *)__builtin_alloca(size);
    block[0] = 1;
    PARAMETER(plan);
    LOCAL(size);
    int result = HERE(NEXT(plan));
    return result + block[0] + (int)size + plan->at;
}

#ifndef _WIN64
NOINLINE int __attribute__((stdcall)) by_stdcall(Plan *plan, int a, int64_t b, short c) {
    ENTER();
    PARAMETER(plan);
    PARAMETER(a);
    PARAMETER(b);
    PARAMETER(c);
    return HERE(NEXT(plan)) + a + (int)b + c + plan->at;
}

NOINLINE int __attribute__((fastcall)) by_fastcall(Plan *plan, int a, int b, int c) {
    ENTER();
    PARAMETER(plan);
    PARAMETER(a);
    PARAMETER(b);
    PARAMETER(c);
    return HERE(NEXT(plan)) + a * b + c + plan->at;
}

int conventional(Plan *plan) {
    ENTER();
    int sum = (int)seed * 3;
    LOCAL(sum);
    sum += HERE(by_stdcall(plan, sum, 0x100000001LL, -3));
    return sum;
}

int fast(Plan *plan) {
    ENTER();
    return HERE(by_fastcall(plan, (int)seed, 2, 3)) + 1;
}
#else
#define conventional integers
#define fast drops
#endif

static Plan plans[] = {
    {0, {integers, texts, structures, floats, inlines, leaf_read}},
    {0, {drops, blocks, aligned, moved, conventional, fault_read}},
    {0, {moved, fast, inlines, drops, integers, raise_software}},
};

void faults_start(void);

int main(void) {
    unsigned i;
    ts_start();
    shapes_start();
    faults_start();
    ts_decoys();
    for (i = 0; i < sizeof plans / sizeof plans[0]; i++)
        ts_spawn(climb, &plans[i]);
    ts_ready();
    Sleep(INFINITE);
    return 0;
}
