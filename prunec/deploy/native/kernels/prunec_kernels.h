/* Kernels of compiled networks: what every processor runs, and the choice of one's vectors.
 *
 * A tensor of channels is a row of planes: H rows of `stride` floats, of which the first `width` are
 * values and the others zero, so that a convolution reads its borders where they stand. Offsets are in
 * floats: of buffers from the start of the workspace, of data from the start of the weights.
 * PRUNEC_MOST (0 plain, 1 baseline vectors, 2 AVX2, 3 AVX-512) bounds what is chosen at run time;
 * with PRUNEC_HERE nothing is compiled beyond what the compiler may use everywhere (-march=native).
 * With PRUNEC_HALVES the code for AVX-512 runs everywhere, its vectors in halves: to test it.
 */
#ifndef PRUNEC_KERNELS_H
#define PRUNEC_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef PRUNEC_MOST
#define PRUNEC_MOST 3
#endif

/* With PRUNEC_PROFILE every call is timed: what it computes, and the seconds that it took last. */
#ifdef PRUNEC_PROFILE
#include <time.h>
struct pn_about {
    const char *layer, *kernel;
    double weights, live, products, stored, tensors, seconds;
};
static inline double pn_since(const struct timespec *start) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}
#define PN_STEP(number, call)                                                                      \
    do {                                                                                           \
        struct timespec start;                                                                     \
        timespec_get(&start, TIME_UTC);                                                            \
        call;                                                                                      \
        about[number].seconds = pn_since(&start);                                                  \
    } while (0)
#else
#define PN_STEP(number, call) call
#endif

typedef uint16_t pn_u16;
typedef uint32_t pn_u32;

static inline const pn_u32 *pn_whole(const float *data, size_t at) {
    return (const pn_u32 *)(const void *)(data + at);
}

static inline const pn_u16 *pn_short(const float *data, size_t at) {
    return (const pn_u16 *)(const void *)(data + at);
}

static inline const unsigned char *pn_byte(const float *data, size_t at) {
    return (const unsigned char *)(data + at);
}

#include "prunec_weights.h"

enum { PN_RANK = 6 };
/* Of dense convolutions: filters of a block, taps of a panel. */
#define PN_ROWS 4
#define PN_DEPTH 256
enum { PN_NONE, PN_RELU, PN_CLIP };

/* Planes of a tensor: the first value of channel c stands at `at + c * plane`. */
struct pn_planes {
    size_t at, lead, channels, plane, height, width, stride;
};

/* Planes split by the parity of row and column (`step` apart), with the row stride of an output. */
struct pn_phases {
    size_t in, plane, stride, height, width, channels;
    size_t out, out_plane, out_stride, origin, size;
    size_t step_y, step_x, count;
    size_t rows, columns, at; /* of a phase: its first row and column, as pairs in the weights */
};

/* Weights whose zeros have a pattern. Blocks, `groups` of them: block b is of the filters `firsts[b]` to
 * `firsts[b + 1]`, four at most, and has `starts[b] .. starts[b + 1]`: numbers of taps, and for each four
 * values. N of M: for each filter `groups` times `kept` values, their places among M in four bits if
 * `packed`, else in bytes; `starts` are steps of places. */
struct pn_pattern {
    size_t firsts, starts, places, values, groups, kept;
    int packed, widened;
};

/* A convolution whose output has the row stride of its input; `positions` of an output lie in a row.
 * A row of the weights is a filter, its numbers those of taps; a dense one holds blocks of four channels,
 * for each tap of the group one value a channel. */
struct pn_conv {
    struct pn_planes out;
    size_t in, residual, positions;
    size_t group_out, group_step, taps;
    size_t bias, values, offsets, dense, scratch, scratch_size;
    struct pn_weights weights;
    size_t together; /* of columns: positions at a time */
    size_t side, in_stride; /* of halved: of the kernel, and of the input */
    int has_residual, activation;
    float low, high;
    const struct pn_phases *phases; /* of one channel, where each is split just before it is read */
    struct pn_pattern pattern;
};

struct pn_pool {
    struct pn_planes out;
    size_t in, plane, stride, height, width;
    long kernel_y, kernel_x, step_y, step_x, top, left, gap_y, gap_x;
    int largest, counts_padding;
    long padded_bottom, padded_right;
    size_t scratch, scratch_size; /* two lines */
};

struct pn_linear {
    size_t in, out, rows, in_step, out_step, inputs, outputs;
    size_t bias, values;
    struct pn_weights weights;
    int sparse, activation;
    float low, high;
};

/* Values of two tensors of any strides, up to six axes; a stride of 0 repeats. */
struct pn_walk {
    size_t sizes[PN_RANK];
    size_t a, b, out;
    long a_steps[PN_RANK], b_steps[PN_RANK], out_steps[PN_RANK];
    int operation;
    float alpha, beta;
};

/* Rows over outer axes, each of the values over inner axes. */
struct pn_rows {
    size_t outer[PN_RANK], inner[PN_RANK];
    size_t in, out, scale, shift;
    long in_outer[PN_RANK], in_inner[PN_RANK], out_outer[PN_RANK], out_inner[PN_RANK];
    size_t kept;
    int operation;
    float epsilon;
};

/* `blocks` of `count` slices of `size` floats, taken by their numbers, in any strides. */
struct pn_take {
    size_t in, out, numbers;
    size_t sizes[PN_RANK];
    long in_steps[PN_RANK], out_steps[PN_RANK];
    int axis;
};

/* Rows and columns between two others each: numbers, and the share of the second. */
struct pn_resize {
    struct pn_planes out;
    size_t in, plane, stride, rows, columns, row_shares, column_shares;
};

struct pn_product {
    size_t a, b, out, batch[PN_RANK], rows, inner, columns;
    long a_batch[PN_RANK], b_batch[PN_RANK], out_batch[PN_RANK];
    long a_row, a_step, b_step, b_column, out_row, out_column;
};

struct pn_kernels {
    const char *name;
    void (*sparse)(const struct pn_conv *, float *, const float *);
    void (*dense)(const struct pn_conv *, float *, const float *);
    void (*columns)(const struct pn_conv *, float *, const float *);
    void (*three)(const struct pn_conv *, float *, const float *);
    void (*stepped)(const struct pn_conv *, float *, const float *);
    void (*halved)(const struct pn_conv *, float *, const float *);
    void (*linear)(const struct pn_linear *, float *, const float *);
    void (*combine)(const struct pn_walk *, float *);
    void (*widen)(const struct pn_widen *, float *, const float *);
    void (*pool)(const struct pn_pool *, float *);
    void (*blocks)(const struct pn_conv *, float *, const float *);
    void (*neighbours)(const struct pn_conv *, float *, const float *);
};

/* Threads of a run: as many as have scratch memory, each but the first behind the planned workspace. */
#ifdef _OPENMP
#include <omp.h>
#ifdef PRUNEC_TEAM
#define PRUNEC_THREADS_MOST PRUNEC_TEAM
#elif !defined(PRUNEC_THREADS_MOST)
#define PRUNEC_THREADS_MOST 8
#endif
/* Jobs are shared as threads become free, or equally beforehand; little work is not shared. */
#define PN_PARALLEL _Pragma("omp parallel for schedule(dynamic) num_threads(pn_threads())")
#define PN_PARALLEL_IF _Pragma("omp parallel for schedule(dynamic) num_threads(pn_threads()) if(worth)")
#define PN_BANDS_IF _Pragma("omp parallel for schedule(static) num_threads(pn_threads()) if(worth)")
#define PN_PARALLEL_ROWS _Pragma("omp parallel for num_threads(pn_threads()) if(rows > 7)")
#define PN_PARTS 4
static inline int pn_threads(void) {
#ifdef PRUNEC_TEAM
    return PRUNEC_TEAM;
#endif
    return omp_get_max_threads() < PRUNEC_THREADS_MOST ? omp_get_max_threads() : PRUNEC_THREADS_MOST;
}
static inline float *pn_scratch(float *w, size_t first) {
    const size_t number = (size_t)omp_get_thread_num();
    return number ? w + PN_PEAK + (number - 1) * PN_SCRATCH : w + first;
}
#else
#define PRUNEC_THREADS_MOST 1
#define PN_PARALLEL
#define PN_PARALLEL_IF
#define PN_BANDS_IF
#define PN_PARALLEL_ROWS
#define PN_PARTS 1
static inline int pn_threads(void) { return 1; }
static inline float *pn_scratch(float *w, size_t first) { return w + first; }
#endif

/* Asks for the cache lines of floats that are read soon. */
static inline void pn_ahead(const float *from, const float *to) {
#if defined(__GNUC__)
    for (; from < to; from += 16) __builtin_prefetch(from, 0, 2);
#else
    (void)from, (void)to;
#endif
}

static inline void pn_fill(float *out, size_t count, float value) {
    for (size_t i = 0; i < count; i++) out[i] = value;
}

/* Zeros in the borders of a plane, of positions `first` to `last`; behind the last row to its end.
 * `row` is where the row of `first` begins. */
static inline void pn_clean(const struct pn_planes *t, float *plane, size_t row, size_t first,
                            size_t last) {
    if (t->stride > t->width)
        for (; row + t->width < last; row += t->stride)
            for (size_t i = row + t->width; i < row + t->stride; i++)
                if (i >= first && i < last) plane[i] = 0.0F;
    size_t end = (t->height - 1) * t->stride + t->width;
    if (last >= end) memset(plane + end, 0, (t->plane - end) * sizeof(float));
}

static inline void pn_clean_all(const struct pn_planes *t, float *w) {
    memset(w + t->at - t->lead, 0, t->lead * sizeof(float));
    for (size_t c = 0; c < t->channels; c++)
        pn_clean(t, w + t->at + c * t->plane, 0, 0, t->height * t->stride);
}

/* Vectors of the compiler: for x86-64 and NEON. */
#if defined(__GNUC__) && PRUNEC_MOST > 0 && (defined(__x86_64__) || defined(__ARM_NEON))
#define PN_VECTORS 1
#endif

#ifdef PN_VECTORS
/* Four floats, as every processor with vectors has them; their numbers mixed with those of another four. */
typedef float pn_four __attribute__((vector_size(16), may_alias));
typedef float pn_four_loaded __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t pn_four_mask __attribute__((vector_size(16)));
#define PN_QUAD(p) (*(const pn_four_loaded *)(const void *)(p))
#if defined(__clang__)
#define PN_MIXED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PN_MIXED(a, b, ...) __builtin_shuffle(a, b, (pn_four_mask){__VA_ARGS__})
#endif
static inline pn_four pn_within(pn_four v, pn_four low, pn_four high) {
#if defined(__x86_64__)
    return (pn_four)__builtin_ia32_minps(high, __builtin_ia32_maxps(low, v));
#else
    const pn_four_mask below = v < low;
    v = (pn_four)(((pn_four_mask)low & below) | ((pn_four_mask)v & ~below));
    const pn_four_mask above = v > high;
    return (pn_four)(((pn_four_mask)high & above) | ((pn_four_mask)v & ~above));
#endif
}
#endif

#include "prunec_plain.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the weights are stored for processors with little-endian numbers"
#endif

#define PN_JOIN2(a, b) a##b
#define PN_JOIN(a, b) PN_JOIN2(a, b)
#define PN(name) PN_JOIN(name, PN_SUFFIX)
#define PN_TEXT2(a) #a
#define PN_TEXT(a) PN_TEXT2(a)

/* Which vectors are compiled, beside those that the compiler may use. */
#if defined(PN_VECTORS) && defined(__x86_64__) && PRUNEC_MOST > 2 && \
    (defined(__AVX512VL__) || !defined(PRUNEC_HERE) || defined(PRUNEC_HALVES))
#define PN_AVX512 1
#endif
#if defined(PN_VECTORS) && defined(__x86_64__) && PRUNEC_MOST > 1 && \
    !(defined(PN_AVX512) && defined(__AVX512VL__)) && \
    ((defined(__AVX2__) && defined(__FMA__)) || !defined(PRUNEC_HERE))
#define PN_AVX2 1
#endif
#if defined(PN_VECTORS) && !(defined(__AVX2__) && defined(__FMA__) && PRUNEC_MOST > 1)
#define PN_BASELINE 1
#endif
#if defined(PN_BASELINE) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("O2,fp-contract=fast")
#endif

/* PN_TILE is the number of sums in registers: 24 of the 32 of AVX-512, 12 of the 16 of AVX2 and SSE; the
 * others hold weights and what is read. */
#ifndef PN_VECTORS
#define PN_SUFFIX _plain
#define PN_LANES 1
#define PN_TILE 4
#include "prunec_vectors.h"
#endif

#ifdef PN_BASELINE
#define PN_SUFFIX _baseline
#define PN_LANES 4
#define PN_TILE 12
#include "prunec_vectors.h"
#endif

#if defined(PN_AVX2) || defined(PN_AVX512)
#include <cpuid.h>
#endif

#ifdef PN_AVX2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define PN_SUFFIX _avx2
#define PN_F16C
#define PN_LANES 8
#define PN_TILE 12
#include "prunec_vectors.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#ifdef PN_AVX512
#if defined(PRUNEC_HALVES)
#elif defined(__clang__)
#define PN_F16C
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#define PN_F16C
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx2,fma,f16c")
#endif
#define PN_SUFFIX _avx512
#define PN_LANES 16
#define PN_TILE 24
#include "prunec_vectors.h"
#if defined(PRUNEC_HALVES)
#elif defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#if defined(__x86_64__) && (defined(PN_AVX2) || defined(PN_AVX512))
/* Whether the processor widens halves: bit 29 of what it says of itself; compilers have no name for it. */
static inline int pn_has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1U);
}
#endif

static inline const struct pn_kernels *pn_chosen(void) {
#if defined(PRUNEC_HALVES)
    return &pn_kernels_avx512;
#elif defined(PN_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && pn_has_f16c())
        return &pn_kernels_avx512;
#endif
#ifdef PN_AVX2
#ifdef PN_BASELINE
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && pn_has_f16c())
#endif
        return &pn_kernels_avx2;
#elif !defined(PN_BASELINE) && defined(PN_VECTORS)
    return &pn_kernels_avx512;
#endif
#ifdef PN_BASELINE
    return &pn_kernels_baseline;
#endif
#ifndef PN_VECTORS
    return &pn_kernels_plain;
#endif
}

#endif
