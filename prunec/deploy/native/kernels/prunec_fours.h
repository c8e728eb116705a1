/* Integer kernels over vectors of PN_WIDTH bytes, included by prunec_bytes.h for each kind of processor.
 *
 * Four weights of a filter at a time: of four places a vector of bytes each, turned so that the four bytes of
 * a position lie side by side; a dot product adds their four products to the position's sum. A unit is a
 * vector of positions: four vectors of sums. The order of the positions among the sums is that of the
 * turning; packing them undoes it.
 */

#if PN_WIDTH == 64
#define PN_M(name) _mm512_##name
typedef __m512i PN_OF(pn_ints);
typedef __m512 PN_OF(pn_reals);
#elif PN_WIDTH == 32
#define PN_M(name) _mm256_##name
typedef __m256i PN_OF(pn_ints);
typedef __m256 PN_OF(pn_reals);
#elif PN_WIDTH == 16 && defined(__x86_64__)
#define PN_M(name) _mm_##name
typedef __m128i PN_OF(pn_ints);
typedef __m128 PN_OF(pn_reals);
#elif PN_WIDTH == 16
typedef int32x4_t PN_OF(pn_ints);
typedef float32x4_t PN_OF(pn_reals);
typedef uint8x16_t PN_OF(pn_read);
#else
typedef int32_t PN_OF(pn_ints);
typedef float PN_OF(pn_reals);
#endif
#define PN_I PN_OF(pn_ints)
#define PN_R PN_OF(pn_reals)

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

#ifdef PN_M /* x86-64 */

#if PN_WIDTH == 64
#define PN_BYTES_AT(p) _mm512_loadu_si512(p)
#define PN_BYTES_TO(p, v) _mm512_storeu_si512(p, v)
#define PN_NO_BYTES _mm512_setzero_si512()
#define PN_BOTH(a, b) _mm512_and_si512(a, b)
#define PN_EITHER(a, b) _mm512_or_si512(a, b)
#define PN_WITHOUT(a, b) _mm512_andnot_si512(b, a)
#elif PN_WIDTH == 32
#define PN_BYTES_AT(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define PN_BYTES_TO(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define PN_NO_BYTES _mm256_setzero_si256()
#define PN_BOTH(a, b) _mm256_and_si256(a, b)
#define PN_EITHER(a, b) _mm256_or_si256(a, b)
#define PN_WITHOUT(a, b) _mm256_andnot_si256(b, a)
#else
#define PN_BYTES_AT(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define PN_BYTES_TO(p, v) _mm_storeu_si128((__m128i *)(void *)(p), v)
#define PN_NO_BYTES _mm_setzero_si128()
#define PN_BOTH(a, b) _mm_and_si128(a, b)
#define PN_EITHER(a, b) _mm_or_si128(a, b)
#define PN_WITHOUT(a, b) _mm_andnot_si128(b, a)
#endif
#define PN_ALL(x) PN_M(set1_ps)(x)
#define PN_START(bias, total) PN_M(set1_epi32)(bias)
#define PN_TURNED(total) 0
#define PN_REAL(v) PN_M(cvtepi32_ps)(v)

/* Four products of bytes, added to each sum. With weights of seven bits two products fit 16 bits; with eight
 * AVX2 multiplies as SSE2 must, which multiplies no bytes: those with even numbers, and those with odd ones,
 * as 16 bits. */
PN_INLINE PN_I PN_OF(pn_dot)(PN_I sum, PN_I bytes, PN_I weights) {
#if PN_WIDTH == 64
    return _mm512_dpbusd_epi32(sum, bytes, weights);
#elif defined(PN_DOT)
    return PN_DOT(sum, bytes, weights);
#elif PN_WIDTH == 32 && !defined(PN_EIGHT_BITS)
    const PN_I pairs = _mm256_maddubs_epi16(bytes, weights);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#else
    const PN_I even = PN_BOTH(bytes, PN_M(set1_epi16)(255)), odd = PN_M(srli_epi16)(bytes, 8);
    const PN_I first = PN_M(srai_epi16)(PN_M(slli_epi16)(weights, 8), 8);
    const PN_I second = PN_M(srai_epi16)(weights, 8);
    return PN_M(add_epi32)(
        sum, PN_M(add_epi32)(PN_M(madd_epi16)(even, first), PN_M(madd_epi16)(odd, second)));
#endif
}

PN_INLINE void PN_OF(pn_add_four)(PN_I *sum, const unsigned char *const *at, size_t p, PN_I weights) {
    const PN_I a = PN_BYTES_AT(at[0] + p), b = PN_BYTES_AT(at[1] + p);
    const PN_I c = PN_BYTES_AT(at[2] + p), d = PN_BYTES_AT(at[3] + p);
    const PN_I ab = PN_M(unpacklo_epi8)(a, b), cd = PN_M(unpacklo_epi8)(c, d);
    const PN_I ab2 = PN_M(unpackhi_epi8)(a, b), cd2 = PN_M(unpackhi_epi8)(c, d);
    sum[0] = PN_OF(pn_dot)(sum[0], PN_M(unpacklo_epi16)(ab, cd), weights);
    sum[1] = PN_OF(pn_dot)(sum[1], PN_M(unpackhi_epi16)(ab, cd), weights);
    sum[2] = PN_OF(pn_dot)(sum[2], PN_M(unpacklo_epi16)(ab2, cd2), weights);
    sum[3] = PN_OF(pn_dot)(sum[3], PN_M(unpackhi_epi16)(ab2, cd2), weights);
}

PN_INLINE PN_I PN_OF(pn_weights)(const signed char *values) {
    int32_t four;
    memcpy(&four, values, sizeof four);
    return PN_M(set1_epi32)(four);
}

/* Fours of bytes to where turning and packing have them: of sums in the order of the positions, fours 0 to 3
 * lie in the first of the vectors, but the turning has 0, 4, 8 and 12 there. */
PN_INLINE PN_I PN_OF(pn_dealt)(PN_I bytes) {
#if PN_WIDTH == 64
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
#elif PN_WIDTH == 32
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
#else
    return bytes;
#endif
}
/* And back. */
PN_INLINE PN_I PN_OF(pn_gathered)(PN_I bytes) {
#if PN_WIDTH == 32
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
#else
    return PN_OF(pn_dealt)(bytes);
#endif
}

/* Bytes less `zero`, in the order of the sums. */
PN_INLINE void PN_OF(pn_widen_bytes)(PN_I *wide, const unsigned char *from, int zero, const int in_order) {
    PN_I read = PN_BYTES_AT(from);
    const PN_I none = PN_NO_BYTES, less = PN_M(set1_epi32)(zero);
    if (in_order) read = PN_OF(pn_dealt)(read);
    const PN_I low = PN_M(unpacklo_epi8)(read, none), high = PN_M(unpackhi_epi8)(read, none);
    wide[0] = PN_M(sub_epi32)(PN_M(unpacklo_epi16)(low, none), less);
    wide[1] = PN_M(sub_epi32)(PN_M(unpackhi_epi16)(low, none), less);
    wide[2] = PN_M(sub_epi32)(PN_M(unpacklo_epi16)(high, none), less);
    wide[3] = PN_M(sub_epi32)(PN_M(unpackhi_epi16)(high, none), less);
}

/* To the nearest whole number, halves to the even one; plus `zero`, within a byte. What 32 bits do not hold
 * would become the lowest number: right below, wrong above. */
PN_INLINE PN_I PN_OF(pn_narrowed)(const PN_R *made, int zero) {
    const PN_I add = PN_M(set1_epi16)((short)zero);
    PN_I whole[4];
    PN_UNROLLED for (int j = 0; j < 4; j++)
        whole[j] = PN_M(cvtps_epi32)(PN_M(min_ps)(made[j], PN_ALL(32767.0F)));
    const PN_I low = PN_M(packs_epi32)(whole[0], whole[1]), high = PN_M(packs_epi32)(whole[2], whole[3]);
    return PN_M(packus_epi16)(PN_M(adds_epi16)(low, add), PN_M(adds_epi16)(high, add));
}

PN_INLINE void PN_OF(pn_put)(unsigned char *out, const PN_R *made, const unsigned char *inside, int zero,
                             int least, int most, const int in_order) {
    PN_I bytes = PN_OF(pn_narrowed)(made, zero);
    if (in_order) bytes = PN_OF(pn_gathered)(bytes);
    bytes = PN_M(max_epu8)(bytes, PN_M(set1_epi8)((char)least));
    const PN_I within = PN_M(min_epu8)(bytes, PN_M(set1_epi8)((char)most)), mask = PN_BYTES_AT(inside);
    PN_BYTES_TO(out, PN_EITHER(PN_BOTH(within, mask), PN_WITHOUT(PN_M(set1_epi8)((char)zero), mask)));
}

PN_INLINE PN_R PN_OF(pn_kept)(PN_R v, float low, float high) {
    return PN_M(min_ps)(PN_M(max_ps)(v, PN_ALL(low)), PN_ALL(high));
}

PN_INLINE void PN_OF(pn_larger)(unsigned char *to, const unsigned char *a, const unsigned char *b,
                                size_t count) {
    for (size_t i = 0; i < count; i += PN_WIDTH)
        PN_BYTES_TO(to + i, PN_M(max_epu8)(PN_BYTES_AT(a + i), PN_BYTES_AT(b + i)));
}

#elif PN_WIDTH == 16 /* NEON */

#define PN_ALL(x) vdupq_n_f32(x)
#define PN_REAL(v) vcvtq_f32_s32(v)

#if defined(PN_DOTPROD)
/* The dot product takes signed bytes: of bytes less 128, with 128 times the weights' total added before. */
#define PN_TURNED(total) (128 * (total))
#define PN_START(bias, total) vdupq_n_s32((bias) + PN_TURNED(total))
typedef int8x16_t PN_OF(pn_four);
PN_INLINE int8x16_t PN_OF(pn_weights)(const signed char *values) {
    int32_t four;
    memcpy(&four, values, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
PN_INLINE void PN_OF(pn_add_four)(PN_I *sum, const unsigned char *const *at, size_t p, int8x16_t weights) {
    const uint8x16_t turn = vdupq_n_u8(128);
    const uint8x16x2_t ab = vzipq_u8(vld1q_u8(at[0] + p), vld1q_u8(at[1] + p));
    const uint8x16x2_t cd = vzipq_u8(vld1q_u8(at[2] + p), vld1q_u8(at[3] + p));
    PN_UNROLLED for (int half = 0; half < 2; half++) {
        const uint16x8_t left = vreinterpretq_u16_u8(veorq_u8(ab.val[half], turn));
        const uint16x8x2_t four = vzipq_u16(left, vreinterpretq_u16_u8(veorq_u8(cd.val[half], turn)));
        sum[2 * half] = vdotq_s32(sum[2 * half], vreinterpretq_s8_u16(four.val[0]), weights);
        sum[2 * half + 1] = vdotq_s32(sum[2 * half + 1], vreinterpretq_s8_u16(four.val[1]), weights);
    }
}
#else
#define PN_START(bias, total) vdupq_n_s32(bias)
#define PN_TURNED(total) 0
typedef const signed char *PN_OF(pn_four);
PN_INLINE const signed char *PN_OF(pn_weights)(const signed char *values) { return values; }
PN_INLINE void PN_OF(pn_add_four)(PN_I *sum, const unsigned char *const *at, size_t p,
                                  const signed char *weights) {
    PN_UNROLLED for (int i = 0; i < 4; i++) {
        const uint8x16_t read = vld1q_u8(at[i] + p);
        const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(read)));
        const int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(read)));
        sum[0] = vmlal_n_s16(sum[0], vget_low_s16(low), weights[i]);
        sum[1] = vmlal_n_s16(sum[1], vget_high_s16(low), weights[i]);
        sum[2] = vmlal_n_s16(sum[2], vget_low_s16(high), weights[i]);
        sum[3] = vmlal_n_s16(sum[3], vget_high_s16(high), weights[i]);
    }
}
#endif

PN_INLINE void PN_OF(pn_widen_bytes)(PN_I *wide, const unsigned char *from, int zero, const int in_order) {
    (void)in_order; /* here both orders are one */
    const uint8x16_t read = vld1q_u8(from);
    const uint16x8_t halves[2] = {vmovl_u8(vget_low_u8(read)), vmovl_u8(vget_high_u8(read))};
    PN_UNROLLED for (int i = 0; i < 2; i++) {
        const uint32x4_t low = vmovl_u16(vget_low_u16(halves[i])), high = vmovl_u16(vget_high_u16(halves[i]));
        wide[2 * i] = vsubq_s32(vreinterpretq_s32_u32(low), vdupq_n_s32(zero));
        wide[2 * i + 1] = vsubq_s32(vreinterpretq_s32_u32(high), vdupq_n_s32(zero));
    }
}

PN_INLINE void PN_OF(pn_put)(unsigned char *out, const PN_R *made, const unsigned char *inside, int zero,
                             int least, int most, const int in_order) {
    (void)in_order;
    uint8x8_t halves[2];
    PN_UNROLLED for (int i = 0; i < 2; i++) {
        const int16x4_t low = vqmovn_s32(vcvtnq_s32_f32(made[2 * i]));
        const int16x4_t high = vqmovn_s32(vcvtnq_s32_f32(made[2 * i + 1]));
        halves[i] = vqmovun_s16(vqaddq_s16(vcombine_s16(low, high), vdupq_n_s16((short)zero)));
    }
    const uint8x16_t bytes = vmaxq_u8(vcombine_u8(halves[0], halves[1]), vdupq_n_u8((unsigned char)least));
    const uint8x16_t within = vminq_u8(bytes, vdupq_n_u8((unsigned char)most));
    vst1q_u8(out, vbslq_u8(vld1q_u8(inside), within, vdupq_n_u8((unsigned char)zero)));
}

PN_INLINE PN_R PN_OF(pn_kept)(PN_R v, float low, float high) {
    return vminq_f32(vmaxq_f32(v, PN_ALL(low)), PN_ALL(high));
}

PN_INLINE void PN_OF(pn_larger)(unsigned char *to, const unsigned char *a, const unsigned char *b,
                                size_t count) {
    for (size_t i = 0; i < count; i += 16) vst1q_u8(to + i, vmaxq_u8(vld1q_u8(a + i), vld1q_u8(b + i)));
}

#else /* number by number */

#define PN_ALL(x) (x)
#define PN_START(bias, total) (bias)
#define PN_TURNED(total) 0
#define PN_REAL(v) ((float)(v))

PN_INLINE const signed char *PN_OF(pn_weights)(const signed char *values) { return values; }

PN_INLINE void PN_OF(pn_add_four)(PN_I *sum, const unsigned char *const *at, size_t p,
                                  const signed char *weights) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sum[j] += weights[i] * at[i][p + (size_t)j];
}

PN_INLINE void PN_OF(pn_widen_bytes)(PN_I *wide, const unsigned char *from, int zero, const int in_order) {
    (void)in_order;
    for (int j = 0; j < 4; j++) wide[j] = from[j] - zero;
}

PN_INLINE void PN_OF(pn_put)(unsigned char *out, const PN_R *made, const unsigned char *inside, int zero,
                             int least, int most, const int in_order) {
    (void)in_order;
    for (int j = 0; j < 4; j++) {
        /* Beyond 16 bits others are cut off before `zero` is added. */
        const float kept = made[j] > -32768.0F ? (made[j] < 32767.0F ? made[j] : 32767.0F) : -32768.0F;
        const long byte = lrintf(kept) + zero;
        const long within = byte < least ? least : byte > most ? most : byte;
        out[j] = (unsigned char)(inside[j] ? within : zero);
    }
}

PN_INLINE PN_R PN_OF(pn_kept)(PN_R v, float low, float high) { return pn_bounded(v, PN_CLIP, low, high); }

PN_INLINE void PN_OF(pn_larger)(unsigned char *to, const unsigned char *a, const unsigned char *b,
                                size_t count) {
    for (size_t i = 0; i < count; i++) to[i] = a[i] > b[i] ? a[i] : b[i];
}
#endif

/* Floats of a unit in the order of the positions, those before `end`, in fours. */
PN_INLINE void PN_OF(pn_put_floats)(float *out, const PN_R *made, size_t p, size_t end, const int in_order) {
    for (size_t i = 0; i < PN_WIDTH && p + i < end; i += PN_WIDTH / 4 < 4 ? 1 : 4) {
        const int turned = PN_WIDTH >= 16 && !in_order;
        const float *from = (const float *)(const void *)&made[turned ? i / 4 % 4 : 0];
        memcpy(out + p + i, from + (turned ? i / 16 * 4 : i), (PN_WIDTH < 16 ? 1 : 4) * sizeof(float));
    }
}

/* The sums of a unit, finished and stored; in the order of the positions they are of `vectors` only. */
PN_INLINE void PN_OF(pn_finish)(const struct pn_fours *k, float *w, const float *data, size_t c, size_t p,
                                const PN_I *sum, const int vectors, const int in_order) {
    const PN_R scale = PN_ALL(data[k->scales + c]);
    const size_t made_of = (size_t)vectors * (PN_WIDTH / 4);
    PN_R made[4];
    PN_UNROLLED for (int j = 0; j < 4; j++) made[j] = PN_REAL(sum[j]) * scale;
    if (k->has_residual) {
        PN_I read[4];
        const unsigned char *from = (const unsigned char *)(w + k->residual) + k->residual_lead;
        PN_OF(pn_widen_bytes)(read, from + c * k->residual_plane + p, k->residual_zero, in_order);
        PN_UNROLLED for (int j = 0; j < 4; j++) {
            const PN_R other = PN_REAL(read[j]) * PN_ALL(k->residual_scale);
            made[j] = PN_OF(pn_kept)(made[j], k->first_low, k->first_high) + other;
        }
    }
    if (k->wide) {
        const size_t end = p + made_of < k->positions ? p + made_of : k->positions;
        PN_UNROLLED for (int j = 0; j < 4; j++) made[j] = PN_OF(pn_kept)(made[j], k->low, k->high);
        PN_OF(pn_put_floats)(w + k->floats.at + c * k->floats.plane, made, p, end, in_order);
        return;
    }
    unsigned char *out = pn_channel(&k->out, w, c) + p, few[PN_WIDTH];
    PN_OF(pn_put)(vectors < 4 ? few : out, made, pn_byte(data, k->inside) + p, k->out.zero, k->least, k->most,
                  in_order);
    if (vectors < 4) memcpy(out, few, made_of);
}

/* What lies behind the positions that were computed: zeros. */
static inline void PN_OF(pn_below)(const struct pn_fours *k, float *w, size_t made_of) {
    if (k->wide) {
        pn_clean_all(&k->floats, w);
        return;
    }
    memset(w + k->out.at, k->out.zero, k->out.lead);
    for (size_t c = 0; c < k->out.channels; c++)
        memset(pn_channel(&k->out, w, c) + made_of, k->out.zero, k->out.plane - made_of);
}

#define PN_MOST_UNITS (PN_WIDTH == 64 ? 4 : PN_WIDTH == 4 ? 1 : 2)

/* Filters `first` to `last` of a tile of units from position p on. */
PN_INLINE void PN_OF(pn_fours_tile)(const struct pn_fours *k, float *w, const float *data, size_t p,
                                    size_t first, size_t last, const int units) {
    const pn_offset32 *offsets = pn_offsets(w, k->offsets);
    const pn_u16 *counts = pn_short(data, k->counts), *numbers = pn_short(data, k->places);
    const unsigned char *gaps = pn_byte(data, k->places);
    const signed char *values = (const signed char *)(const void *)(data + k->values);
    const int32_t *bias = (const int32_t *)(const void *)(data + k->bias);
    const int32_t *totals = (const int32_t *)(const void *)(data + k->totals);
    size_t i = 4 * pn_fours_before(k, data, first);
    size_t group = first / k->group_out, next = (group + 1) * k->group_out;
    const unsigned char *in = (const unsigned char *)(w + k->in) + k->shift + group * k->group_step + p;
    (void)totals;
    for (size_t c = first; c < last; c++) {
        if (c == next) in += k->group_step, next += k->group_out;
        PN_I sum[PN_MOST_UNITS][4];
        PN_UNROLLED for (int t = 0; t < units; t++) PN_UNROLLED for (int j = 0; j < 4; j++)
            sum[t][j] = PN_START(bias[c], totals[c]);
        const pn_offset32 *offset = offsets;
        for (const size_t end = i + 4 * (size_t)counts[c]; i < end; i += 4) {
            const unsigned char *at[4];
            if (k->far) PN_UNROLLED for (int j = 0; j < 4; j++) at[j] = in + offsets[numbers[i + (size_t)j]];
            else PN_UNROLLED for (int j = 0; j < 4; j++) {
                offset += gaps[i + (size_t)j];
                at[j] = in + *offset;
            }
            PN_UNROLLED for (int t = 0; t < units; t++)
                PN_OF(pn_add_four)(sum[t], at, (size_t)t * PN_WIDTH, PN_OF(pn_weights)(values + i));
        }
        PN_UNROLLED for (int t = 0; t < units; t++)
            PN_OF(pn_finish)(k, w, data, c, p + (size_t)t * PN_WIDTH, sum[t], 4, 0);
    }
}

static void PN_OF(pn_fours_some)(const struct pn_fours *k, float *w, const float *data, size_t p,
                                 size_t first, size_t last, size_t units) {
    switch (units) {
    case 1: PN_OF(pn_fours_tile)(k, w, data, p, first, last, 1); break;
#if PN_WIDTH > 4
    case 2: PN_OF(pn_fours_tile)(k, w, data, p, first, last, 2); break;
#endif
#if PN_WIDTH == 64
    case 3: PN_OF(pn_fours_tile)(k, w, data, p, first, last, 3); break;
    case 4: PN_OF(pn_fours_tile)(k, w, data, p, first, last, 4); break;
#endif
    default: break;
    }
}

static void PN_OF(pn_fours)(const struct pn_fours *k, float *w, const float *data) {
    const size_t units = (k->positions + PN_WIDTH - 1) / PN_WIDTH, filters = k->out.channels;
    const size_t tiles = (units + PN_MOST_UNITS - 1) / PN_MOST_UNITS;
    PN_PARALLEL for (long job = 0; job < (long)(tiles * PN_PARTS); job++) {
        const size_t number = (size_t)job / PN_PARTS, part = (size_t)job % PN_PARTS;
        const size_t from = units * number / tiles, to = units * (number + 1) / tiles;
        PN_OF(pn_fours_some)(k, w, data, from * PN_WIDTH, filters * part / PN_PARTS,
                             filters * (part + 1) / PN_PARTS, to - from);
    }
    PN_OF(pn_below)(k, w, units * PN_WIDTH);
}

#include "prunec_quads.h"
#include "prunec_rows.h"

/* The largest byte of each window: of its rows, then along the row. */
static void PN_OF(pn_largest)(const struct pn_byte_pool *k, float *w) {
    unsigned char *line = (unsigned char *)(w + k->line), *made = line + k->room, *row = line + k->left;
    const size_t width = k->in.width, count = k->room - 64;
    memset(line, 0, (size_t)k->left);
    for (size_t c = 0; c < k->out.channels; c++)
        for (long y = 0; y < (long)k->out.height; y++) {
            int seen = 0;
            for (long i = 0; i < k->kernel_y; i++) {
                const long number = y * k->step_y - k->top + i * k->gap_y;
                if (number < 0 || number >= (long)k->in.height) continue;
                const unsigned char *from = pn_channel(&k->in, w, c) + (size_t)number * k->in.stride;
                PN_OF(pn_larger)(row, seen++ ? row : from, from, width);
            }
            /* Beside the row vectors have left what they read there. */
            pn_fill_bytes(row + width, 0, (long)(count - width) - k->left);
            for (long j = 0; j < k->kernel_x; j++) {
                const size_t reach = (size_t)(j * k->gap_x);
                PN_OF(pn_larger)(made, j ? made : line, line + reach, count - reach);
            }
            pn_every_byte(pn_channel(&k->out, w, c) + (size_t)y * k->out.stride, made, (long)k->out.width,
                          k->step_x);
        }
    pn_frame(&k->out, w);
}

static const struct pn_byte_kernels PN_OF(pn_byte_kernels) = {
    PN_TEXT(PN_OF()), PN_OF(pn_fours), PN_OF(pn_quads), PN_OF(pn_rows8), PN_OF(pn_rescaled), PN_OF(pn_largest)};

#undef PN_M
#undef PN_I
#undef PN_R
#undef PN_UNROLLED
#undef PN_INLINE
#undef PN_BYTES_AT
#undef PN_BYTES_TO
#undef PN_NO_BYTES
#undef PN_BOTH
#undef PN_EITHER
#undef PN_WITHOUT
#undef PN_ALL
#undef PN_START
#undef PN_TURNED
#undef PN_REAL
#undef PN_MOST_UNITS
#undef PN_OF
#undef PN_WIDTH
