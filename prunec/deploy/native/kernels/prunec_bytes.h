/* Integer kernels of compiled networks: values as unsigned bytes, weights as signed ones, sums of 32 bits.
 *
 * A byte b of a tensor stands for (b - zero) * scale. Tensors are planes as in prunec_kernels.h, of bytes;
 * what is not a value holds `zero`. All vectors compute the same bits: sums are whole numbers, and what
 * follows them is rounded one operation after the other.
 */
#ifndef PRUNEC_BYTES_H
#define PRUNEC_BYTES_H

#include "prunec_kernels.h"

/* Of ARM's vectors only those of 64-bit processors round to the nearest. */
#if defined(PN_VECTORS) && defined(__x86_64__)
#define PN_BYTES_X86 1
#include <immintrin.h>
#elif defined(PN_VECTORS) && defined(__aarch64__)
#define PN_BYTES_NEON 1
#include <arm_neon.h>
#endif

/* Planes of bytes: a buffer at `at` (in floats), the first value of channel c at `lead + c * plane`. */
struct pn_bytes {
    size_t at, lead, channels, plane, height, width, stride;
    int zero;
};

/* A convolution. Of each filter there are `counts` fours of weights: four bytes of `values`, and of `places`
 * as in prunec_weights.h. `shift`: bytes from `in` to what the first output reads. `inside`: a byte for each
 * position of a plane, 255 where a value stands. Sums start at `bias`; times `scales` they are the steps of
 * the output, or, if it is `wide`, its floats. */
struct pn_fours {
    struct pn_bytes out;
    struct pn_planes floats;
    size_t in, shift, positions, inside;
    size_t group_out, group_step, taps; /* taps: quads that a filter reads, or inputs of a linear layer */
    size_t starts, counts, places, values, offsets, totals, bias, scales;
    int far, wide, has_residual, residual_zero;
    size_t residual, residual_lead, residual_plane;
    float residual_scale, first_low, first_high, low, high; /* the first two: before the residual is added */
    int least, most;
};

/* Planes of floats beside planes of bytes. */
struct pn_exchange {
    struct pn_bytes bytes;
    struct pn_planes floats;
    float scale;
};

/* Phases of planes, as struct pn_phases has them for floats. */
struct pn_byte_phases {
    struct pn_bytes in;
    size_t out, out_plane, out_stride, step_y, step_x, count, rows, columns, at;
};

/* Channels of a group in quads: each `plane` bytes behind the one before, `lead` bytes before the first. */
struct pn_byte_quads {
    size_t in, lead, plane, groups, group_in, out;
    int zero;
};

/* `count` bytes times a scale, perhaps with others added: of whole planes, so that borders become `zero`. */
struct pn_byte_sum {
    size_t a, a_first, b, b_first, out, out_first, lead, count;
    int a_zero, b_zero, zero, two, least, most;
    float a_scale, b_scale;
};

/* The largest of each window; `line`: two lines of bytes, each of `room`, 128 of them to spare. */
struct pn_byte_pool {
    struct pn_bytes in, out;
    size_t line, room;
    long kernel_y, kernel_x, step_y, step_x, top, left, gap_y, gap_x;
};

struct pn_byte_kernels {
    const char *name;
    void (*fours)(const struct pn_fours *, float *, const float *);
    void (*quads)(const struct pn_fours *, float *, const float *);
    void (*rows)(const struct pn_fours *, float *, const float *);
    void (*rescaled)(const struct pn_byte_sum *, float *);
    void (*largest)(const struct pn_byte_pool *, float *);
};

static inline unsigned char *pn_channel(const struct pn_bytes *t, float *w, size_t channel) {
    return (unsigned char *)(w + t->at) + t->lead + channel * t->plane;
}

/* Fours before a filter. */
static inline size_t pn_fours_before(const struct pn_fours *k, const float *data, size_t row) {
    const pn_u16 *counts = pn_short(data, k->counts);
    size_t sum = pn_whole(data, k->starts)[row / PN_STRIDE];
    for (size_t i = row / PN_STRIDE * PN_STRIDE; i < row; i++) sum += counts[i];
    return sum;
}

/* `count` bytes of one value; may write 15 too many. */
static inline void pn_fill_bytes(unsigned char *to, int value, long count) {
#if defined(PN_BYTES_X86)
    const __m128i all = _mm_set1_epi8((char)value);
    for (long i = 0; i < count; i += 16) _mm_storeu_si128((__m128i *)(void *)(to + i), all);
#elif defined(PN_BYTES_NEON)
    for (long i = 0; i < count; i += 16) vst1q_u8(to + i, vdupq_n_u8((unsigned char)value));
#else
    memset(to, value, (size_t)count);
#endif
}

/* Every `step`-th of `count` bytes; may read 31 and write 15 too many. */
static inline void pn_every_byte(unsigned char *to, const unsigned char *from, long count, long step) {
    long i = 0;
    if (step == 1) {
        memcpy(to, from, (size_t)count);
        return;
    }
#if defined(PN_BYTES_X86)
    const __m128i even = _mm_set1_epi16(255);
    for (; step == 2 && i < count; i += 16) {
        const __m128i low = _mm_loadu_si128((const __m128i *)(const void *)(from + 2 * i));
        const __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(from + 2 * i + 16));
        _mm_storeu_si128((__m128i *)(void *)(to + i),
                         _mm_packus_epi16(_mm_and_si128(low, even), _mm_and_si128(high, even)));
    }
#elif defined(PN_BYTES_NEON)
    for (; step == 2 && i < count; i += 16) vst1q_u8(to + i, vld2q_u8(from + 2 * i).val[0]);
#endif
    for (; i < count; i++) to[i] = from[i * step];
}

/* `zero` where there is no value: before the first plane, beside rows, below planes. */
static inline void pn_frame(const struct pn_bytes *t, float *w) {
    const size_t end = (t->height - 1) * t->stride + t->width, beside = t->stride - t->width;
    memset(w + t->at, t->zero, t->lead);
    for (size_t c = 0; c < t->channels; c++) {
        unsigned char *plane = pn_channel(t, w, c);
        for (size_t y = 0; beside && y + 1 < t->height; y++)
            memset(plane + y * t->stride + t->width, t->zero, beside);
        memset(plane + end, t->zero, t->plane - end);
    }
}

static inline void pn_byte_phase(const struct pn_byte_phases *k, const unsigned char *in, unsigned char *out,
                                 long first_y, long first_x) {
    const long rows = (long)k->rows, stride = (long)k->out_stride, step = (long)k->step_x;
    long x = 0, last = (long)k->columns;
    while (x < last && first_x + x * step < 0) x++;
    while (last > x && first_x + (last - 1) * step >= (long)k->in.width) last--;
    for (long y = 0; y < rows; y++) {
        const long row = first_y + y * (long)k->step_y;
        const int inside = row >= 0 && row < (long)k->in.height && last > x;
        const long end = inside ? last : x;
        unsigned char *to = out + y * stride;
        pn_fill_bytes(to, k->in.zero, x);
        if (inside) pn_every_byte(to + x, in + row * (long)k->in.stride + first_x + x * step, last - x, step);
        pn_fill_bytes(to + end, k->in.zero, stride - end);
    }
    memset(out + rows * stride, k->in.zero, k->out_plane - (size_t)(rows * stride));
}

static inline void pn_byte_split(const struct pn_byte_phases *k, float *w, const float *data) {
    const pn_u32 *firsts = pn_whole(data, k->at);
    unsigned char *out = (unsigned char *)(w + k->out);
    for (size_t c = 0; c < k->in.channels; c++)
        for (size_t i = 0; i < k->count; i++, out += k->out_plane)
            pn_byte_phase(k, pn_channel(&k->in, w, c), out, (long)(int32_t)firsts[2 * i],
                          (long)(int32_t)firsts[2 * i + 1]);
}

/* Four channels side by side, position by position; a channel that lacks is one of the others. */
static inline void pn_byte_quad(unsigned char *to, const unsigned char *const *from, size_t count) {
#if defined(PN_BYTES_X86)
    for (size_t i = 0; i < count; i += 16) {
        __m128i own[4];
        for (int j = 0; j < 4; j++) own[j] = _mm_loadu_si128((const __m128i *)(const void *)(from[j] + i));
        for (int half = 0; half < 2; half++) {
            const __m128i ab = half ? _mm_unpackhi_epi8(own[0], own[1]) : _mm_unpacklo_epi8(own[0], own[1]);
            const __m128i cd = half ? _mm_unpackhi_epi8(own[2], own[3]) : _mm_unpacklo_epi8(own[2], own[3]);
            __m128i *at = (__m128i *)(void *)(to + 4 * i) + 2 * half;
            _mm_storeu_si128(at, _mm_unpacklo_epi16(ab, cd));
            _mm_storeu_si128(at + 1, _mm_unpackhi_epi16(ab, cd));
        }
    }
#elif defined(PN_BYTES_NEON)
    for (size_t i = 0; i < count; i += 16) {
        const uint8x16x4_t own = {
            {vld1q_u8(from[0] + i), vld1q_u8(from[1] + i), vld1q_u8(from[2] + i), vld1q_u8(from[3] + i)}};
        vst4q_u8(to + 4 * i, own);
    }
#else
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < 4; j++) to[4 * i + j] = from[j][i];
#endif
}

static inline void pn_in_quads(const struct pn_byte_quads *k, float *w) {
    const unsigned char *in = (const unsigned char *)(w + k->in) + k->lead;
    unsigned char *out = (unsigned char *)(w + k->out);
    memset(out, k->zero, 4 * k->lead);
    out += 4 * k->lead;
    for (size_t g = 0; g < k->groups; g++, in += k->group_in * k->plane)
        for (size_t c = 0; c < k->group_in; c += 4, out += 4 * k->plane) {
            const unsigned char *from[4];
            for (size_t j = 0; j < 4; j++)
                from[j] = in + (c + j < k->group_in ? c + j : k->group_in - 1) * k->plane;
            pn_byte_quad(out, from, k->plane);
        }
}

/* Bytes as floats. */
static inline void pn_unrounded(const struct pn_exchange *k, float *w) {
    const struct pn_planes *t = &k->floats;
    float values[256];
    for (int byte = 0; byte < 256; byte++) values[byte] = (float)(byte - k->bytes.zero) * k->scale;
    for (size_t c = 0; c < t->channels; c++)
        for (size_t y = 0; y < t->height; y++) {
            const unsigned char *from = pn_channel(&k->bytes, w, c) + y * k->bytes.stride;
            float *to = w + t->at + c * t->plane + y * t->stride;
            for (size_t x = 0; x < t->width; x++) to[x] = values[from[x]];
        }
    pn_clean_all(t, w);
}

/* Floats as bytes: quotients by the scale to the nearest, halves to the even one; plus zero, within a byte. */
static inline void pn_round(unsigned char *to, const float *from, size_t count, float scale, int zero) {
    size_t x = 0;
#if defined(PN_BYTES_X86)
    const __m128 step = _mm_set1_ps(scale), most = _mm_set1_ps(512.0F);
    for (; x + 16 <= count; x += 16) {
        __m128i four[4];
        for (int i = 0; i < 4; i++) {
            const __m128 made = _mm_div_ps(_mm_loadu_ps(from + x + 4 * i), step);
            /* Beyond a byte on either side: kept where it fits 16 bits. A NaN becomes the bound. */
            four[i] = _mm_cvtps_epi32(_mm_min_ps(_mm_max_ps(made, _mm_sub_ps(_mm_setzero_ps(), most)), most));
        }
        const __m128i add = _mm_set1_epi16((short)zero);
        const __m128i low = _mm_add_epi16(_mm_packs_epi32(four[0], four[1]), add);
        const __m128i high = _mm_add_epi16(_mm_packs_epi32(four[2], four[3]), add);
        _mm_storeu_si128((__m128i *)(void *)(to + x), _mm_packus_epi16(low, high));
    }
#elif defined(PN_BYTES_NEON)
    for (; x + 8 <= count; x += 8) {
        int16x4_t four[2];
        for (int i = 0; i < 2; i++)
            four[i] = vqmovn_s32(vcvtnq_s32_f32(vdivq_f32(vld1q_f32(from + x + 4 * i), vdupq_n_f32(scale))));
        const int16x8_t add = vdupq_n_s16((short)zero);
        vst1_u8(to + x, vqmovun_s16(vqaddq_s16(vcombine_s16(four[0], four[1]), add)));
    }
#endif
    for (; x < count; x++) {
        const float made = from[x] / scale;
        const float kept = made > -512.0F ? (made < 512.0F ? made : 512.0F) : -512.0F;
        const long byte = lrintf(kept) + zero;
        to[x] = (unsigned char)(byte < 0 ? 0 : byte > 255 ? 255 : byte);
    }
}

static inline void pn_rounded(const struct pn_exchange *k, float *w) {
    const struct pn_planes *t = &k->floats;
    for (size_t c = 0; c < t->channels; c++)
        for (size_t y = 0; y < t->height; y++)
            pn_round(pn_channel(&k->bytes, w, c) + y * k->bytes.stride,
                     w + t->at + c * t->plane + y * t->stride, t->width, k->scale, k->bytes.zero);
    pn_frame(&k->bytes, w);
}

#if defined(__GNUC__) && !defined(__clang__)
/* A product and a sum in one instruction would be rounded once, and differ from those of others. */
#pragma GCC push_options
#pragma GCC optimize("O2,fp-contract=off")
#elif defined(__clang__)
#pragma clang fp contract(off)
#endif

/* One sum of a linear layer or of a plane, finished and stored. */
static inline void pn_finish_one(const struct pn_fours *k, float *w, size_t number, float scale, int32_t sum) {
    const float made = (float)sum * scale;
    if (k->wide) {
        w[k->floats.at + number] = pn_bounded(made, PN_CLIP, k->low, k->high);
        return;
    }
    /* Beyond 16 bits others are cut off before `zero` is added. */
    const float kept = made > -32768.0F ? (made < 32767.0F ? made : 32767.0F) : -32768.0F;
    const long byte = lrintf(kept) + k->out.zero;
    const long within = byte < k->least ? k->least : byte > k->most ? k->most : byte;
    ((unsigned char *)(w + k->out.at))[number] = (unsigned char)within;
}

/* Behind the values of a row, zeros. */
static inline void pn_end_row(const struct pn_fours *k, float *w) {
    if (!k->wide)
        memset((unsigned char *)(w + k->out.at) + k->out.width, k->out.zero, k->out.plane - k->out.width);
}

/* A linear layer without its zeros, whose four sums of every fourth weight are one in the end. */
static inline void pn_sparse_rows(const struct pn_fours *k, float *w, const float *data) {
    const pn_u16 *counts = pn_short(data, k->counts), *numbers = pn_short(data, k->places);
    const unsigned char *gaps = pn_byte(data, k->places), *in = (const unsigned char *)(w + k->in);
    const signed char *values = (const signed char *)(const void *)(data + k->values);
    const int32_t *bias = (const int32_t *)(const void *)(data + k->bias);
    for (size_t o = 0, i = 0; o < k->group_out; o++) {
        const unsigned char *at = in;
        int32_t sums[4] = {bias[o], 0, 0, 0};
        for (const size_t end = i + 4 * (size_t)counts[o]; i < end; i += 4)
            for (size_t j = 0; j < 4; j++) {
                at = k->far ? in + numbers[i + j] : at + gaps[i + j];
                sums[j] += values[i + j] * *at;
            }
        pn_finish_one(k, w, o, data[k->scales + o], sums[0] + sums[1] + sums[2] + sums[3]);
    }
    pn_end_row(k, w);
}

static inline int32_t pn_added_bytes(const unsigned char *from, size_t count) {
    int32_t sum = 0;
    size_t i = 0;
#if defined(PN_BYTES_X86)
    __m128i both = _mm_setzero_si128();
    for (; i + 16 <= count; i += 16) {
        const __m128i read = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
        both = _mm_add_epi64(both, _mm_sad_epu8(read, _mm_setzero_si128()));
    }
    sum = _mm_cvtsi128_si32(both) + _mm_cvtsi128_si32(_mm_srli_si128(both, 8));
#elif defined(PN_BYTES_NEON)
    for (; i + 16 <= count; i += 16) sum += vaddlvq_u8(vld1q_u8(from + i));
#endif
    for (; i < count; i++) sum += from[i];
    return sum;
}

/* The mean of each plane; beside its rows lie zeros, which add nothing. */
static inline void pn_means(const struct pn_fours *k, float *w, const float *data) {
    const unsigned char *in = (const unsigned char *)(w + k->in) + k->shift;
    const int32_t none = *(const int32_t *)(const void *)(data + k->bias);
    for (size_t c = 0; c < k->group_out; c++)
        pn_finish_one(k, w, c, data[k->scales], none + pn_added_bytes(in + c * k->group_step, k->taps));
    pn_end_row(k, w);
}

#if defined(PN_BYTES_X86) && PRUNEC_MOST > 2 && !defined(PRUNEC_HALVES) && \
    ((defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)) || !defined(PRUNEC_HERE))
#define PN_VNNI 1
#define PN_OF(name) PN_JOIN(name, _vnni)
#define PN_WIDTH 64
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512vnni")
#endif
#include "prunec_fours.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* Dot products of half the width: an extension of AVX2, or that of AVX-512 in a build for one processor that
 * shall not use whole vectors. */
#if defined(PN_BYTES_X86) && PRUNEC_MOST > 1 && !defined(PRUNEC_HERE) && (defined(__clang__) || __GNUC__ > 10)
#define PN_DOT _mm256_dpbusd_avx_epi32
#elif defined(PN_BYTES_X86) && PRUNEC_MOST > 1 && !defined(PN_VNNI) && defined(__AVXVNNI__)
#define PN_DOT _mm256_dpbusd_avx_epi32
#elif defined(PN_BYTES_X86) && PRUNEC_MOST == 2 && defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define PN_DOT _mm256_dpbusd_epi32
#endif
#ifdef PN_DOT
#define PN_AVXVNNI 1
#define PN_OF(name) PN_JOIN(name, _avxvnni)
#define PN_WIDTH 32
#if !defined(PRUNEC_HERE) && defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#elif !defined(PRUNEC_HERE)
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni")
#endif
#include "prunec_fours.h"
#if !defined(PRUNEC_HERE) && defined(__clang__)
#pragma clang attribute pop
#elif !defined(PRUNEC_HERE)
#pragma GCC pop_options
#endif
#undef PN_DOT
#endif

/* A build for one processor has one of them. */
#if defined(PRUNEC_HERE) && (defined(PN_VNNI) || defined(PN_AVXVNNI))
#define PN_BYTES_DONE 1
#endif

#if defined(PN_BYTES_X86) && PRUNEC_MOST > 1 && !defined(PN_BYTES_DONE) && \
    (defined(__AVX2__) || !defined(PRUNEC_HERE))
#define PN_BYTES_AVX2 1
#define PN_OF(name) PN_JOIN(name, _avx2)
#define PN_WIDTH 32
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#include "prunec_fours.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* gcc compiles dot products for processors that have them beside code for those that have not. */
#if defined(PN_BYTES_NEON) && defined(__ARM_FEATURE_DOTPROD)
#define PN_DOTPROD 1
#elif defined(PN_BYTES_NEON) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#include <sys/auxv.h>
#define PN_BYTES_DOTPROD 1
#define PN_DOTPROD 1
#define PN_OF(name) PN_JOIN(name, _dotprod)
#define PN_WIDTH 16
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#include "prunec_fours.h"
#pragma GCC pop_options
#undef PN_DOTPROD
#endif

#if defined(PN_BYTES_NEON) || \
    (defined(PN_BYTES_X86) && !defined(PN_BYTES_DONE) && !(defined(PN_BYTES_AVX2) && defined(__AVX2__)))
#define PN_BYTES_BASELINE 1
#define PN_OF(name) PN_JOIN(name, _baseline)
#define PN_WIDTH 16
#include "prunec_fours.h"
#elif !defined(PN_BYTES_X86)
#define PN_BYTES_PLAIN 1
#define PN_OF(name) PN_JOIN(name, _plain)
#define PN_WIDTH 4
#include "prunec_fours.h"
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#if defined(PN_AVXVNNI) && !defined(PN_BYTES_DONE)
#include <cpuid.h>
/* Not every compiler that has the instruction knows its name. */
static inline int pn_has_avxvnni(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

static inline const struct pn_byte_kernels *pn_chosen_bytes(void) {
#if defined(PN_VNNI) && defined(PN_BYTES_DONE)
    return &pn_byte_kernels_vnni;
#elif defined(PN_BYTES_DONE)
    return &pn_byte_kernels_avxvnni;
#else
#ifdef PN_VNNI
    if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vnni"))
        return &pn_byte_kernels_vnni;
#endif
#ifdef PN_AVXVNNI
    if (__builtin_cpu_supports("avx2") && pn_has_avxvnni()) return &pn_byte_kernels_avxvnni;
#endif
#ifdef PN_BYTES_AVX2
#ifdef PN_BYTES_BASELINE
    if (__builtin_cpu_supports("avx2"))
#endif
        return &pn_byte_kernels_avx2;
#endif
#ifdef PN_BYTES_DOTPROD
    if (getauxval(AT_HWCAP) & (1UL << 20)) return &pn_byte_kernels_dotprod; /* HWCAP_ASIMDDP */
#endif
#ifdef PN_BYTES_BASELINE
    return &pn_byte_kernels_baseline;
#endif
#ifdef PN_BYTES_PLAIN
    return &pn_byte_kernels_plain;
#endif
#endif
}

#endif
