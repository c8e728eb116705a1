/* Weights without their zeros: values, and the gaps between their numbers in a row. */

/* Row c holds `counts[c]` weights, behind those of the rows before it: `starts` has the sum before every
 * PN_STRIDE-th row. Places are bytes, each the distance from the weight before (the first: from number 0),
 * where one too far away has weights of value 0 between; or `far`, the numbers themselves in two bytes.
 * Values are floats, or halves. */
#define PN_STRIDE 32
struct pn_weights {
    size_t starts, counts, places, values;
    size_t first; /* the row that counts as row 0 */
    int far, halves;
};

/* Weights before a row. */
static inline size_t pn_before(const struct pn_weights *k, const float *data, size_t row) {
    const pn_u16 *counts = pn_short(data, k->counts);
    const size_t number = k->first + row, block = number / PN_STRIDE;
    size_t sum = pn_whole(data, k->starts)[block];
    for (size_t i = block * PN_STRIDE; i < number; i++) sum += counts[i];
    return sum;
}

/* Halves that are widened together, on the stack. */
#define PN_SOME 64

/* Halves as floats: exact, subnormal ones too; weights are finite. */
static inline void pn_widened(const pn_u16 *from, float *to, size_t count) {
#if defined(__ARM_FP16_FORMAT_IEEE) && defined(__aarch64__)
    const __fp16 *halves = (const __fp16 *)(const void *)from;
    for (size_t i = 0; i < count; i++) to[i] = (float)halves[i];
#else
    for (size_t i = 0; i < count; i++) {
        /* The exponent's bias is 15 of a half, 127 of a float: 112 powers of two between. */
        const pn_u32 bits = (pn_u32)(from[i] & 0x7FFF) << 13, sign = (pn_u32)(from[i] & 0x8000) << 16;
        float size;
        memcpy(&size, &bits, sizeof size);
        size *= 0x1p112F;
        pn_u32 made;
        memcpy(&made, &size, sizeof made);
        made |= sign;
        memcpy(to + i, &made, sizeof made);
    }
#endif
}

/* Sum of some weights times what they stand for; `at` is the number of the weight before. */
static inline float pn_dot(const float *in, const float *values, const unsigned char *gaps, size_t count,
                           size_t *at) {
    float sums[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    size_t i = 0, number = *at;
    for (; i + 4 <= count; i += 4) {
        const size_t second = number + gaps[i] + gaps[i + 1], fourth = second + gaps[i + 2] + gaps[i + 3];
        sums[0] += values[i] * in[number + gaps[i]], sums[1] += values[i + 1] * in[second];
        sums[2] += values[i + 2] * in[second + gaps[i + 2]], sums[3] += values[i + 3] * in[fourth];
        number = fourth;
    }
    for (; i < count; i++) number += gaps[i], sums[0] += values[i] * in[number];
    *at = number;
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

static inline float pn_dot_far(const float *in, const float *values, const pn_u16 *numbers, size_t count) {
    float sums[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (size_t j = 0; j < 4; j++) sums[j] += values[i + j] * in[numbers[i + j]];
    for (; i < count; i++) sums[0] += values[i] * in[numbers[i]];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

/* Output `o` of a linear layer before its bias; `i` is the number of its first weight. */
static inline float pn_row(const struct pn_weights *k, const float *data, const float *in, size_t i,
                           size_t count) {
    float wide[PN_SOME], sum = 0.0F;
    size_t at = 0;
    for (size_t some; count; i += some, count -= some) {
        const float *values = data + k->values + i;
        some = k->halves && count > PN_SOME ? PN_SOME : count;
        if (k->halves) pn_widened(pn_short(data, k->values) + i, wide, some), values = wide;
        sum += k->far ? pn_dot_far(in, values, pn_short(data, k->places) + i, some)
                      : pn_dot(in, values, pn_byte(data, k->places) + i, some, &at);
    }
    return sum;
}
