/* Sparse convolutions whose zeros have a pattern, included by prunec_vectors.h for each kind of processor.
 *
 * R x 1: up to four filters share their positions, so that what is read at a position is used four times.
 * N : M: of M neighbours along the input channels N are kept; their positions take four or eight bits.
 */

/* Vectors of positions for which the sums of four filters stay in registers: of 32 on aarch64, 20. */
#if defined(__aarch64__) && PN_LANES == 4
#define PN_NARROW 5
#else
#define PN_NARROW (PN_TILE / 4)
#endif

PN_INLINE void PN(pn_blocks_tile)(const struct pn_conv *k, float *w, const float *data, size_t p,
                                  size_t first, size_t last, const int tile) {
    const struct pn_pattern *own = &k->pattern;
    const pn_u32 *starts = pn_whole(data, own->starts), *offsets = pn_whole(data, k->offsets);
    const pn_u32 *firsts = pn_whole(data, own->firsts);
    const pn_u16 *places = pn_short(data, own->places);
    const float *values = (own->widened ? w : data) + own->values, *bias = data + k->bias;
    const size_t row = p / k->out.stride * k->out.stride;
    for (size_t b = first; b < last; b++) {
        const size_t c = firsts[b], rows = firsts[b + 1] - c;
        const float *in = w + k->in + c / k->group_out * k->group_step + p;
        PN_V sum[4][PN_NARROW];
        PN_UNROLLED for (size_t r = 0; r < 4; r++) {
            const float start = r < rows ? bias[c + r] : 0.0F;
            PN_UNROLLED for (int t = 0; t < tile; t++) sum[r][t] = PN_ALL(start);
        }
        for (size_t i = starts[b]; i < starts[b + 1]; i++) {
            const float *taps = in + offsets[places[i]], *value = values + 4 * i;
            PN_V read[PN_NARROW];
            PN_UNROLLED for (int t = 0; t < tile; t++) read[t] = PN_LOAD(taps + t * PN_LANES);
            PN_UNROLLED for (int r = 0; r < 4; r++) {
                const PN_V weight = PN_ALL(value[r]);
                PN_UNROLLED for (int t = 0; t < tile; t++) sum[r][t] += weight * read[t];
            }
        }
        PN_UNROLLED for (size_t r = 0; r < 4; r++) if (r < rows) {
            const size_t plane = (c + r) * k->out.plane;
            float *out = w + k->out.at + plane + p;
            PN_FINISH(sum[r], out, w + k->residual + plane + p);
            pn_clean(&k->out, out - p, row, p, p + (size_t)tile * PN_LANES);
        }
    }
}

static void PN(pn_blocks_some)(const struct pn_conv *k, float *w, const float *data, size_t p,
                               size_t first, size_t last, size_t tile) {
    switch (tile) {
        PN_CASE(pn_blocks_tile, 1)
#if PN_NARROW > 1
        PN_CASE(pn_blocks_tile, 2)
        PN_CASE(pn_blocks_tile, 3)
#endif
#if PN_NARROW > 3
        PN_CASE(pn_blocks_tile, 4)
        PN_CASE(pn_blocks_tile, 5)
#endif
#if PN_NARROW > 5
        PN_CASE(pn_blocks_tile, 6)
#endif
    default: break;
    }
}

static void PN(pn_blocks)(const struct pn_conv *k, float *w, const float *data) {
    const size_t nonzero = 4 * pn_whole(data, k->pattern.starts)[k->pattern.groups];
    PN_TILES(PN_NARROW, k->pattern.groups, nonzero, PN(pn_blocks_some));
}

/* A weight at place `m` of the M neighbours that begin at `taps`; place i of those in four bits. */
#define PN_NIBBLE(i) (places[(i) / 2] >> (i) % 2 * 4 & 15)
#define PN_PLACED(taps, m)                                                                         \
    do {                                                                                           \
        const float *from = (taps) + steps[m];                                                     \
        const PN_V weight = PN_ALL(*value++);                                                      \
        PN_UNROLLED for (int t = 0; t < tile; t++) sum[t] += weight * PN_LOAD(from + t * PN_LANES); \
    } while (0)

PN_INLINE void PN(pn_neighbours_tile)(const struct pn_conv *k, float *w, const float *data, size_t p,
                                      size_t first, size_t last, const int tile) {
    const struct pn_pattern *own = &k->pattern;
    const pn_u32 *offsets = pn_whole(data, k->offsets), *steps = pn_whole(data, own->starts);
    const unsigned char *places = (const unsigned char *)(data + own->places);
    const float *values = (own->widened ? w : data) + own->values, *bias = data + k->bias;
    const size_t row = p / k->out.stride * k->out.stride, each = own->groups * own->kept;
    const int pairs = own->packed && own->kept == 1;
    for (size_t c = first; c < last; c++) {
        const float *in = w + k->in + c / k->group_out * k->group_step + p;
        float *out = w + k->out.at + c * k->out.plane + p;
        PN_V sum[PN_LONG];
        PN_UNROLLED for (int t = 0; t < tile; t++) sum[t] = PN_ALL(bias[c]);
        size_t i = c * each, g = 0;
        const float *value = values + i;
        if (pairs) { /* one of M, two places a byte: no shift that depends on i */
            if (i % 2) {
                PN_PLACED(in + offsets[0], places[i / 2] >> 4);
                g++, i++;
            }
            for (; g + 2 <= own->groups; g += 2, i += 2) {
                const unsigned both = places[i / 2];
                PN_PLACED(in + offsets[g], both & 15);
                PN_PLACED(in + offsets[g + 1], both >> 4);
            }
        }
        for (; g < own->groups; g++) {
            const float *taps = in + offsets[g];
            for (size_t end = i + own->kept; i < end; i++) {
                if (own->packed) PN_PLACED(taps, PN_NIBBLE(i));
                else PN_PLACED(taps, places[i]);
            }
        }
        PN_FINISH(sum, out, w + k->residual + c * k->out.plane + p);
        pn_clean(&k->out, out - p, row, p, p + (size_t)tile * PN_LANES);
    }
}

static void PN(pn_neighbours_some)(const struct pn_conv *k, float *w, const float *data, size_t p,
                                   size_t first, size_t last, size_t tile) {
    switch (tile) { PN_CASES(pn_neighbours_tile) }
}

static void PN(pn_neighbours)(const struct pn_conv *k, float *w, const float *data) {
    const size_t nonzero = k->out.channels * k->pattern.groups * k->pattern.kept;
    PN_TILES(PN_LONG, k->out.channels, nonzero, PN(pn_neighbours_some));
}

#undef PN_NARROW
#undef PN_PLACED
#undef PN_NIBBLE
