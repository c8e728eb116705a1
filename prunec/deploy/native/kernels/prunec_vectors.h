/* Kernels over vectors of PN_LANES floats, included once for each kind of processor.
 *
 * A tile is PN_LONG vectors of positions at most. The sums of a tile stay in registers; for each weight
 * that is not zero its taps are read at one offset, multiplied and added.
 */

/* Vectors of a tile of a sparse kernel. NEON has registers for 24 sums; 16 have most of the effect with half
 * of the code. AVX-512 has them too, but of 12 vectors more inputs stay in the first-level cache: ResNet-50
 * with 95 % zeros took 2 % less time, and no layer more than 1 % more. */
#if defined(__aarch64__) && PN_LANES == 4
#define PN_LONG 16
#else
#define PN_LONG (PN_TILE < 12 ? PN_TILE : 12)
#endif

/* In memory a vector may begin at any float: rows have any length, and taps any offset. */
#if PN_LANES == 1
typedef float PN(pn_vector);
typedef float PN(pn_loaded);
typedef int32_t PN(pn_mask);
#else
typedef float PN(pn_vector) __attribute__((vector_size(4 * PN_LANES), may_alias));
typedef float PN(pn_loaded) __attribute__((vector_size(4 * PN_LANES), aligned(4), may_alias));
typedef int32_t PN(pn_mask) __attribute__((vector_size(4 * PN_LANES)));
#endif

#define PN_V PN(pn_vector)
#define PN_LOAD(p) (*(const PN(pn_loaded) *)(const void *)(p))
#define PN_STORE(p, v) (*(PN(pn_loaded) *)(void *)(p) = (v))
#if PN_LANES == 1
#define PN_ALL(x) (x)
#define PN_MAX(v, x) ((v) < (x) ? (x) : (v))
#define PN_MIN(v, x) ((v) > (x) ? (x) : (v))
#else
/* x - 0 is x for every number, -0 too, so that compilers make one broadcast of it. */
#define PN_ALL(x) ((x) - (PN_V){0})
/* A NaN stays one: of a NaN, maxps and minps return their second operand. */
#if defined(__x86_64__) && PN_LANES == 16 && !defined(PRUNEC_HALVES)
#define PN_MAX(v, x) PN(pn_larger)(PN_ALL(x), v)
#define PN_MIN(v, x) PN(pn_smaller)(PN_ALL(x), v)
#elif defined(__x86_64__) && PN_LANES == 8
#define PN_MAX(v, x) ((PN_V)__builtin_ia32_maxps256(PN_ALL(x), v))
#define PN_MIN(v, x) ((PN_V)__builtin_ia32_minps256(PN_ALL(x), v))
#elif defined(__x86_64__) && PN_LANES == 4
#define PN_MAX(v, x) ((PN_V)__builtin_ia32_maxps(PN_ALL(x), v))
#define PN_MIN(v, x) ((PN_V)__builtin_ia32_minps(PN_ALL(x), v))
#elif defined(__aarch64__) && PN_LANES == 4
/* One instruction each; of a number and a NaN it makes a NaN. */
#define PN_MAX(v, x) ((PN_V)vmaxq_f32((float32x4_t)(v), vdupq_n_f32(x)))
#define PN_MIN(v, x) ((PN_V)vminq_f32((float32x4_t)(v), vdupq_n_f32(x)))
#else
#define PN_PICK(m, v, x) ((PN_V)(((PN(pn_mask))(PN_ALL(x)) & (m)) | ((PN(pn_mask))(v) & ~(m))))
#define PN_MAX(v, x) PN_PICK((v) < PN_ALL(x), v, x)
#define PN_MIN(v, x) PN_PICK((v) > PN_ALL(x), v, x)
#endif
#endif

#if defined(__clang__)
#define PN_UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define PN_UNROLLED _Pragma("GCC unroll 32")
#else
#define PN_UNROLLED
#endif
#if defined(__GNUC__)
#define PN_INLINE static inline __attribute__((always_inline))
#else
#define PN_INLINE static inline
#endif

#if defined(__x86_64__) && PN_LANES == 16 && !defined(PRUNEC_HALVES)
/* Compilers disagree on their functions for these two instructions. The second order of operands is
 * Intel's (-masm=intel). */
PN_INLINE PN_V PN(pn_larger)(PN_V v, PN_V x) {
    PN_V made;
    __asm__("vmaxps {%2, %1, %0|%0, %1, %2}" : "=v"(made) : "v"(v), "v"(x));
    return made;
}
PN_INLINE PN_V PN(pn_smaller)(PN_V v, PN_V x) {
    PN_V made;
    __asm__("vminps {%2, %1, %0|%0, %1, %2}" : "=v"(made) : "v"(v), "v"(x));
    return made;
}
#endif

/* Numbers of two vectors, put together in one. */
#if defined(__clang__)
#define PN_PICKED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PN_PICKED(a, b, ...) __builtin_shuffle(a, b, (PN(pn_mask)){__VA_ARGS__})
#endif

/* A vector in a register: compilers would load it again for every product, and loads are the bound. */
#if defined(__GNUC__) && defined(__x86_64__) && PN_LANES > 1 && !(PN_LANES > 8 && defined(PRUNEC_HALVES))
#define PN_HELD(v) __asm__("" : "+v"(v))
#elif defined(__GNUC__) && defined(__aarch64__) && PN_LANES > 1
#define PN_HELD(v) __asm__("" : "+w"(v))
#else
#define PN_HELD(v) (void)(v)
#endif

/* The sums of a tile, finished: residual, activation; stored. */
#define PN_FINISH(sum, to, from)                                                                   \
    do {                                                                                           \
        if (k->has_residual) PN_UNROLLED for (int t = 0; t < tile; t++)(sum)[t] +=                  \
            PN_LOAD((from) + t * PN_LANES);                                                        \
        if (k->activation) PN_UNROLLED for (int t = 0; t < tile; t++)(sum)[t] =                     \
            PN_MIN(PN_MAX((sum)[t], k->low), k->high);                                             \
        PN_UNROLLED for (int t = 0; t < tile; t++) PN_STORE((to) + t * PN_LANES, (sum)[t]);         \
    } while (0)

/* A weight times what a tile of positions reads, added. */
#define PN_TAP(taps, weight)                                                                       \
    do {                                                                                           \
        const float *read = (taps);                                                                \
        const PN_V value = PN_ALL(weight);                                                         \
        PN_UNROLLED for (int t = 0; t < tile; t++) sum[t] += value * PN_LOAD(read + t * PN_LANES);  \
    } while (0)

PN_INLINE void PN(pn_sparse_tile)(const struct pn_conv *k, float *w, const float *data, size_t p,
                                  size_t first, size_t last, const int tile) {
    const struct pn_weights *own = &k->weights;
    const pn_offset32 *offsets = pn_offsets(w, own->offsets);
    const pn_u16 *counts = pn_short(data, own->counts) + own->first;
    const pn_u16 *numbers = pn_short(data, own->places);
    const unsigned char *gaps = pn_byte(data, own->places);
    const float *values = (own->widened ? w : data) + own->values, *bias = data + k->bias;
    size_t i = pn_before(own, data, first);
    const size_t row = p / k->out.stride * k->out.stride;
    size_t group = first / k->group_out, next = (group + 1) * k->group_out;
    const float *in = w + k->in + group * k->group_step + p;
    for (size_t c = first; c < last; c++) {
        if (c == next) in += k->group_step, next += k->group_out;
        float *out = w + k->out.at + c * k->out.plane + p;
        PN_V sum[PN_LONG];
        PN_UNROLLED for (int t = 0; t < tile; t++) sum[t] = PN_ALL(bias[c]);
        const size_t end = i + counts[c];
        if (own->far) for (; i < end; i++) PN_TAP(in + offsets[numbers[i]], values[i]);
        else for (const pn_offset32 *offset = offsets; i < end; i++) {
            offset += gaps[i];
            PN_TAP(in + *offset, values[i]);
        }
        PN_FINISH(sum, out, w + k->residual + c * k->out.plane + p);
        pn_clean(&k->out, out - p, row, p, p + (size_t)tile * PN_LANES);
    }
}

#define PN_CASE(kind, n) \
    case n: PN(kind)(k, w, data, p, first, last, n); break;

/* A case for each number of vectors of a tile. */
#if PN_LONG > 12
#define PN_CASES(kind) \
    PN_TWELVE(kind) \
    PN_CASE(kind, 13) PN_CASE(kind, 14) PN_CASE(kind, 15) PN_CASE(kind, 16) \
    default: break;
#elif PN_TILE > 4
#define PN_CASES(kind) PN_TWELVE(kind) default: break;
#else
#define PN_CASES(kind) PN_FOUR(kind) default: break;
#endif
#define PN_TWELVE(kind) \
    PN_FOUR(kind) \
    PN_CASE(kind, 5) PN_CASE(kind, 6) PN_CASE(kind, 7) PN_CASE(kind, 8) \
    PN_CASE(kind, 9) PN_CASE(kind, 10) PN_CASE(kind, 11) PN_CASE(kind, 12)
#define PN_FOUR(kind) \
    PN_CASE(kind, 1) PN_CASE(kind, 2) PN_CASE(kind, 3) PN_CASE(kind, 4)

static void PN(pn_sparse_some)(const struct pn_conv *k, float *w, const float *data, size_t p,
                               size_t first, size_t last, size_t tile) {
    switch (tile) { PN_CASES(pn_sparse_tile) }
}

/* Every tile, each for all channels or for parts of them; tiles differ by one vector at most. Threads that
 * have enough positions take a band of them each, the same one in every layer: what a layer reads was mostly
 * written by the same thread, and lies in its caches. Fewer positions, or none for some thread: parts of the
 * channels, as threads become free. */
#define PN_WORTH 2048 /* products of vectors, about a microsecond: fewer are not worth a second thread */
#define PN_BAND 4 /* vectors of a thread: with fewer, weights would be read for too few products */
#define PN_TILES(most, rows, nonzero, kind)                                                        \
    do {                                                                                           \
        const size_t vectors = (k->positions + PN_LANES - 1) / PN_LANES;                           \
        const int worth = vectors * ((nonzero) + k->out.channels) >= PN_WORTH;                     \
        (void)worth;                                                                               \
        const size_t team = (size_t)pn_threads(), least = (vectors + (most)-1) / (most);           \
        memset(w + k->out.at - k->out.lead, 0, k->out.lead * sizeof(float));                       \
        if (team > 1 && vectors >= PN_BAND * team) {                                                \
            const size_t tiles = (least + team - 1) / team * team;                                 \
            PN_BANDS_IF for (long job = 0; job < (long)tiles; job++) {                              \
                const size_t from = vectors * (size_t)job / tiles;                                 \
                const size_t to = vectors * ((size_t)job + 1) / tiles;                             \
                kind(k, w, data, from * PN_LANES, 0, rows, to - from);                             \
            }                                                                                      \
            break;                                                                                 \
        }                                                                                          \
        PN_PARALLEL_IF for (long job = 0; job < (long)(least * PN_PARTS); job++) {                  \
            const size_t number = (size_t)job / PN_PARTS, part = (size_t)job % PN_PARTS;           \
            const size_t from = vectors * number / least, to = vectors * (number + 1) / least;     \
            kind(k, w, data, from * PN_LANES, (rows)*part / PN_PARTS, (rows) * (part + 1) / PN_PARTS, \
                 to - from);                                                                       \
        }                                                                                          \
    } while (0)

static void PN(pn_sparse)(const struct pn_conv *k, float *w, const float *data) {
    const size_t last = k->out.channels - 1, nonzero = pn_before(&k->weights, data, last) +
                        pn_short(data, k->weights.counts)[k->weights.first + last];
    PN_TILES(PN_LONG, k->out.channels, nonzero, PN(pn_sparse_some));
}

#include "prunec_blocks.h"
#include "prunec_dense.h"
#include "prunec_columns.h"
#include "prunec_depthwise.h"
#include "prunec_pool.h"

#include "prunec_linear.h"

/* Halves as floats, by the processor's own instruction where it is known to have one. */
static void PN(pn_widen)(const struct pn_widen *k, float *w, const float *data) {
    const pn_u16 *from = pn_short(data, k->from);
    float *to = w + k->to;
    size_t i = 0;
#if defined(PN_F16C) || defined(__F16C__)
    typedef short pn_eight __attribute__((vector_size(16), aligned(2), may_alias));
    typedef float pn_wide __attribute__((vector_size(32), aligned(4), may_alias));
    for (; i + 8 <= k->count; i += 8)
        *(pn_wide *)(void *)(to + i) = __builtin_ia32_vcvtph2ps256(*(const pn_eight *)(const void *)(from + i));
#endif
    for (; i < k->count; i++) to[i] = pn_widened(from[i]);
}

/* Sum, difference, product, quotient where all last axes are contiguous. */
static void PN(pn_combine)(const struct pn_walk *k, float *w) {
    const float *a = w + k->a, *b = w + k->b;
    float *out = w + k->out;
    const size_t count = k->sizes[PN_RANK - 1];
    size_t i = 0;
#define PN_ALONG(operation)                                                                        \
    for (; i + PN_LANES <= count; i += PN_LANES)                                                   \
        PN_STORE(out + i, PN_LOAD(a + i) operation PN_LOAD(b + i));                                \
    for (; i < count; i++) out[i] = a[i] operation b[i];                                           \
    break;
    switch (k->operation) {
    case PN_ADD: PN_ALONG(+)
    case PN_SUB: PN_ALONG(-)
    case PN_MUL: PN_ALONG(*)
    default: PN_ALONG(/)
    }
#undef PN_ALONG
}

static const struct pn_kernels PN(pn_kernels) = {
    PN_TEXT(PN_SUFFIX), PN(pn_sparse), PN(pn_dense), PN(pn_columns),
    PN(pn_three), PN(pn_stepped), PN(pn_halved), PN(pn_linear), PN(pn_combine),
    PN(pn_widen), PN(pn_pool), PN(pn_blocks), PN(pn_neighbours)};

#undef PN_V
#undef PN_LOAD
#undef PN_STORE
#undef PN_ALL
#undef PN_MAX
#undef PN_MIN
#undef PN_PICK
#undef PN_UNROLLED
#undef PN_INLINE
#undef PN_FINISH
#undef PN_HELD
#undef PN_PICKED
#undef PN_CASE
#undef PN_CASES
#undef PN_TWELVE
#undef PN_LONG
#undef PN_FOUR
#undef PN_BAND
#undef PN_WORTH
#undef PN_TILES
#undef PN_TAP
#undef PN_F16C
#undef PN_SUFFIX
#undef PN_LANES
#undef PN_TILE
