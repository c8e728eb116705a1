/* Dense integer convolutions over vectors of PN_WIDTH bytes, included by prunec_fours.h.
 *
 * Channels lie in quads: the bytes of four channels at a position side by side. So a vector of quads is read
 * at the offset of a tap as it is, and one dot product for each vector and filter adds four channels. The
 * sums of four filters at up to four vectors of positions stay in registers; they are in the order of the
 * positions.
 */

/* Filters whose sums are in registers at a time. */
#if PN_WIDTH == 32 || (PN_WIDTH == 16 && defined(__x86_64__))
#define PN_ABREAST 2
#else
#define PN_ABREAST 4
#endif
#define PN_POSITIONS (PN_WIDTH / 4) /* of a vector */

#ifdef PN_M /* x86-64 */
#define PN_QUADS 4
typedef PN_I PN_OF(pn_quad);
PN_INLINE void PN_OF(pn_read_quads)(PN_OF(pn_quad) *x, const unsigned char *at, const int vectors) {
    PN_UNROLLED for (int v = 0; v < vectors; v++) x[v] = PN_BYTES_AT(at + v * PN_WIDTH);
}
PN_INLINE void PN_OF(pn_add_quads)(PN_I *sum, const PN_OF(pn_quad) *x, const signed char *values,
                                   const int vectors) {
    const PN_I weights = PN_OF(pn_weights)(values);
    PN_UNROLLED for (int v = 0; v < vectors; v++) sum[v] = PN_OF(pn_dot)(sum[v], x[v], weights);
}
#elif PN_WIDTH == 16 && defined(PN_DOTPROD)
#define PN_QUADS 4
typedef int8x16_t PN_OF(pn_quad);
PN_INLINE void PN_OF(pn_read_quads)(int8x16_t *x, const unsigned char *at, const int vectors) {
    PN_UNROLLED for (int v = 0; v < vectors; v++)
        x[v] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at + v * 16), vdupq_n_u8(128)));
}
PN_INLINE void PN_OF(pn_add_quads)(PN_I *sum, const int8x16_t *x, const signed char *values,
                                   const int vectors) {
    const int8x16_t weights = PN_OF(pn_weights)(values);
    PN_UNROLLED for (int v = 0; v < vectors; v++) sum[v] = vdotq_s32(sum[v], x[v], weights);
}
#elif PN_WIDTH == 16
/* Without dot products channel by channel, each widened to 16 bits: four vectors of positions at once. */
#define PN_QUADS 8
typedef int16x8_t PN_OF(pn_quad);
PN_INLINE void PN_OF(pn_read_quads)(int16x8_t *x, const unsigned char *at, const int vectors) {
    (void)vectors;
    const uint8x16x4_t read = vld4q_u8(at);
    PN_UNROLLED for (int i = 0; i < 4; i++) {
        x[2 * i] = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(read.val[i])));
        x[2 * i + 1] = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(read.val[i])));
    }
}
PN_INLINE void PN_OF(pn_add_quads)(PN_I *sum, const int16x8_t *x, const signed char *values,
                                   const int vectors) {
    PN_UNROLLED for (int v = 0; v < vectors; v++) PN_UNROLLED for (int i = 0; i < 4; i++) {
        const int16x8_t half = x[2 * i + v / 2];
        sum[v] = vmlal_n_s16(sum[v], v % 2 ? vget_high_s16(half) : vget_low_s16(half), values[i]);
    }
}
#else
#define PN_QUADS 1
typedef const unsigned char *PN_OF(pn_quad);
PN_INLINE void PN_OF(pn_read_quads)(const unsigned char **x, const unsigned char *at, const int vectors) {
    (void)vectors;
    x[0] = at;
}
PN_INLINE void PN_OF(pn_add_quads)(PN_I *sum, const unsigned char *const *x, const signed char *values,
                                   const int vectors) {
    for (int v = 0; v < vectors; v++)
        for (int i = 0; i < 4; i++) sum[v] += values[i] * x[0][4 * v + i];
}
#endif

/* Blocks `first` to `last` of four filters, a few vectors of positions from p on. */
PN_INLINE void PN_OF(pn_quads_tile)(const struct pn_fours *k, float *w, const float *data, size_t p,
                                    size_t first, size_t last, const int vectors) {
    const pn_offset32 *offsets = pn_offsets(w, k->offsets);
    const int32_t *bias = (const int32_t *)(const void *)(data + k->bias);
    const int32_t *totals = (const int32_t *)(const void *)(data + k->totals);
    const size_t blocks = (k->group_out + 3) / 4, taps = k->taps;
    (void)totals;
    for (size_t part = first * (4 / PN_ABREAST); part < last * (4 / PN_ABREAST); part++) {
        const size_t block = part * PN_ABREAST / 4, within = part * PN_ABREAST % 4, group = block / blocks;
        const size_t number = block % blocks * 4 + within, c = group * k->group_out + number;
        if (number >= k->group_out) continue;
        const unsigned char *in = (const unsigned char *)(w + k->in) + k->shift + group * k->group_step + 4 * p;
        const signed char *values = (const signed char *)(const void *)(data + k->values);
        PN_I sum[PN_ABREAST][4];
        values += 16 * taps * block + 4 * within;
        PN_UNROLLED for (int f = 0; f < PN_ABREAST; f++) PN_UNROLLED for (int v = 0; v < 4; v++) {
            const size_t own = number + (size_t)f < k->group_out ? c + (size_t)f : c;
            sum[f][v] = PN_START(bias[own], totals[own]);
        }
        for (size_t i = 0; i < taps; i++, values += 16) {
            PN_OF(pn_quad) x[PN_QUADS];
            PN_OF(pn_read_quads)(x, in + offsets[i], vectors);
            PN_UNROLLED for (int f = 0; f < PN_ABREAST; f++)
                PN_OF(pn_add_quads)(sum[f], x, values + 4 * f, vectors);
        }
        /* In memory, so that one copy of what follows serves all filters. */
        PN_I made[PN_ABREAST][4];
        PN_UNROLLED for (int f = 0; f < PN_ABREAST; f++)
            PN_UNROLLED for (int v = 0; v < 4; v++) made[f][v] = sum[f][v];
        for (size_t f = 0; f < PN_ABREAST && number + f < k->group_out; f++)
            PN_OF(pn_finish)(k, w, data, c + f, p, made[f], vectors, 1);
    }
}

static void PN_OF(pn_quads_some)(const struct pn_fours *k, float *w, const float *data, size_t p,
                                 size_t first, size_t last, size_t vectors) {
    switch (vectors) {
    case 1: PN_OF(pn_quads_tile)(k, w, data, p, first, last, 1); break;
    case 2: PN_OF(pn_quads_tile)(k, w, data, p, first, last, 2); break;
    case 3: PN_OF(pn_quads_tile)(k, w, data, p, first, last, 3); break;
    case 4: PN_OF(pn_quads_tile)(k, w, data, p, first, last, 4); break;
    default: break;
    }
}

static void PN_OF(pn_quads)(const struct pn_fours *k, float *w, const float *data) {
    const size_t vectors = (k->positions + PN_POSITIONS - 1) / PN_POSITIONS, tiles = (vectors + 3) / 4;
    const size_t blocks = (k->group_out + 3) / 4 * (k->out.channels / k->group_out);
    PN_PARALLEL for (long job = 0; job < (long)(tiles * PN_PARTS); job++) {
        const size_t number = (size_t)job / PN_PARTS, part = (size_t)job % PN_PARTS;
        const size_t from = vectors * number / tiles, to = vectors * (number + 1) / tiles;
        PN_OF(pn_quads_some)(k, w, data, from * PN_POSITIONS, blocks * part / PN_PARTS,
                             blocks * (part + 1) / PN_PARTS, to - from);
    }
    PN_OF(pn_below)(k, w, vectors * PN_POSITIONS);
}

#undef PN_ABREAST
#undef PN_POSITIONS
#undef PN_QUADS
