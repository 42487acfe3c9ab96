/* Times simdjson's minify over a file: prints the nanoseconds of the fastest turn and of the middle one, and the
   bytes that came of it. SIMDJSON_FORCE_IMPLEMENTATION picks the kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

extern int minify(const char *, size_t, char *, size_t *) __asm__("_ZN8simdjson6minifyEPKcmPcRm");

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    FILE *file = fopen(arguments[1], "rb");
    if (!file) return 3;
    fseek(file, 0, SEEK_END);
    size_t length = ftell(file), made = 0;
    rewind(file);
    char *text = malloc(length + 256), *to = malloc(length + 256);
    if (fread(text, 1, length, file) != length) return 4;
    int turns = atoi(arguments[2]);
    double *times = malloc(turns * sizeof *times);
    for (int turn = 0; turn < turns; turn++) {
        double start = now();
        if (minify(text, length, to, &made)) return 5;
        times[turn] = now() - start;
    }
    qsort(times, turns, sizeof *times, order);
    printf("%.0f %.0f %zu\n", times[0], times[turns / 2], made);
    return 0;
}
