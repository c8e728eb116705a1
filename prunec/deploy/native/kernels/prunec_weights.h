/* Weights without their zeros: values, and the gaps between their numbers in a row. */

/* Row c holds `counts[c]` weights, behind those of the rows before it: `starts` has the sum before every
 * PN_STRIDE-th row. Places are bytes, each the distance from the weight before (the first: from number 0),
 * where one too far away has weights of value 0 between; or `far`, the numbers themselves in two bytes.
 * Values are floats: of the data, or `widened` from halves into the workspace just before. Of a
 * convolution, number i stands for the offset `offsets[i]`, of the workspace too. */
#define PN_STRIDE 32
struct pn_weights {
    size_t starts, counts, places, values, offsets;
    size_t first; /* the row that counts as row 0 */
    int far, widened;
};

/* Halves of the data as floats of the workspace. */
struct pn_widen {
    size_t from, to, count;
};

/* Offsets at which a filter reads: `taps` of each of `channels` a `step` apart. */
struct pn_reach {
    size_t taps, count, channels, step, out;
};

/* The workspace holds whole numbers where these tables lie. */
#if defined(__GNUC__)
typedef pn_u32 __attribute__((may_alias)) pn_offset32;
#else
typedef pn_u32 pn_offset32;
#endif

static inline const pn_offset32 *pn_offsets(const float *w, size_t at) {
    return (const pn_offset32 *)(const void *)(w + at);
}

static inline void pn_reached(const struct pn_reach *k, float *w, const float *data) {
    const pn_u32 *taps = pn_whole(data, k->taps);
    pn_offset32 *out = (pn_offset32 *)(void *)(w + k->out);
    const size_t count = k->count;
    for (size_t i = 0; i < count; i++) {
        pn_u32 offset = taps[i];
        for (size_t c = 0; c < k->channels; c++, offset += (pn_u32)k->step) out[c * count + i] = offset;
    }
}

/* Weights before a row. */
static inline size_t pn_before(const struct pn_weights *k, const float *data, size_t row) {
    const pn_u16 *counts = pn_short(data, k->counts);
    const size_t number = k->first + row, block = number / PN_STRIDE;
    size_t sum = pn_whole(data, k->starts)[block];
    for (size_t i = block * PN_STRIDE; i < number; i++) sum += counts[i];
    return sum;
}

/* A half as a float: exact, a subnormal one too; weights are finite. */
static inline float pn_widened(pn_u16 half) {
#if defined(__ARM_FP16_FORMAT_IEEE) && defined(__aarch64__)
    __fp16 same;
    memcpy(&same, &half, sizeof same);
    return (float)same;
#else
    /* The exponent's bias is 15 of a half, 127 of a float: 112 powers of two between. */
    const pn_u32 bits = (pn_u32)(half & 0x7FFF) << 13;
    float size;
    memcpy(&size, &bits, sizeof size);
    return half & 0x8000 ? -(size * 0x1p112F) : size * 0x1p112F;
#endif
}

/* A row times a vector: sums of every fourth weight side by side. */
static inline float pn_row(const struct pn_weights *k, const float *values, const float *data,
                           const float *in, size_t i, size_t end) {
    const unsigned char *gaps = pn_byte(data, k->places);
    const pn_u16 *numbers = pn_short(data, k->places);
    float sums[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    const float *at = in;
    if (k->far) {
        for (; i + 4 <= end; i += 4)
            for (size_t j = 0; j < 4; j++) sums[j] += values[i + j] * in[numbers[i + j]];
        for (; i < end; i++) sums[0] += values[i] * in[numbers[i]];
    } else {
        for (; i + 4 <= end; i += 4)
            for (size_t j = 0; j < 4; j++) at += gaps[i + j], sums[j] += values[i + j] * *at;
        for (; i < end; i++) at += gaps[i], sums[0] += values[i] * *at;
    }
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}
