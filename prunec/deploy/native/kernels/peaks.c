/* What this machine can: multiply-adds of float32 in registers, bytes read from memory, a second. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { SUMS = 12 };
typedef float vector __attribute__((vector_size(4 * LANES)));

static double seconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)(now.tv_sec % 1000000) + 1e-9 * (double)now.tv_nsec;
}

/* Sums that do not wait for each other; the fastest of some runs, in 1e9 multiply-adds a second. */
double peak_gmacs(void) {
    double best = 0.0;
    for (int run = 0; run < 20; run++) {
        vector sum[SUMS], x = (vector){0} + 0.999F, y = (vector){0} + 1e-6F;
        for (int i = 0; i < SUMS; i++) sum[i] = x * (float)i;
        const double start = seconds();
        for (int round = 0; round < 100000; round++)
            for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * x + y;
        const double speed = 100000.0 * LANES * SUMS / (seconds() - start) * 1e-9;
        volatile float kept = 0.0F;
        for (int i = 0; i < SUMS; i++) kept = kept + sum[i][0];
        best = speed > best ? speed : best;
    }
    return best;
}

/* 128 MiB, more than caches hold, read once; the fastest of some runs, in 1e9 bytes a second. */
double peak_gbytes(void) {
    const size_t count = ((size_t)1 << 27) / sizeof(vector);
    vector *all = aligned_alloc(64, count * sizeof(vector));
    double best = 0.0;
    if (!all) return 0.0;
    memset(all, 0, count * sizeof(vector));
    for (int run = 0; run < 5; run++) {
        vector sum[4] = {{0}};
        const double start = seconds();
        for (size_t i = 0; i < count; i += 4)
            for (size_t j = 0; j < 4; j++) sum[j] += all[i + j];
        const double speed = (double)(count * sizeof(vector)) / (seconds() - start) * 1e-9;
        volatile float kept = sum[0][0] + sum[1][0] + sum[2][0] + sum[3][0];
        (void)kept;
        best = speed > best ? speed : best;
    }
    free(all);
    return best;
}
