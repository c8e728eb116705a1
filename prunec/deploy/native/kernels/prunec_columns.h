/* Dense convolutions with filters in vectors, included by prunec_vectors.h for each kind of processor.
 *
 * A vector holds the sums of consecutive filters at one position; what a tap reads at a position is
 * broadcast. So planes of any size fill vectors, and nothing is packed. PN_DEPTH taps at a time: the weights
 * of PN_ACROSS vectors of filters stay in the cache while all positions pass; those that follow are asked
 * for meanwhile. Sums wait in the scratch memory, [filters / 16][positions][16], and are transposed into
 * planes in the end.
 */

/* Vectors of filters, and positions, whose sums are in registers. */
#if PN_LANES == 1
enum { PN(pn_across) = 4, PN(pn_down) = 2 };
#elif PN_TILE > 12
enum { PN(pn_across) = 4, PN(pn_down) = 6 };
#else
enum { PN(pn_across) = 2, PN(pn_down) = 6 };
#endif

/* What PN_ACROSS vectors of filters and some positions share. */
struct PN(pn_column) {
    const float *in, *values;      /* first channel of the group; first vector */
    const pn_u32 *offsets;
    size_t taps, block, vectors;   /* floats from 16 filters to the next, of weights; vectors */
    size_t sums_block;             /* the same, of sums */
    float *sums;                   /* of the first position */
    const float *starts;           /* of the first taps: what sums begin with; else NULL */
    const float *next;             /* the weights that follow these, for other taps or filters */
};

/* Floats from the first vector of filters to vector v, where 16 filters take `block` floats. */
#define PN_AT(v, block) ((size_t)((v)*PN_LANES / 16) * (block) + (size_t)((v)*PN_LANES % 16))

PN_INLINE void PN(pn_column_tile)(const struct PN(pn_column) * k, const pn_u32 *where, float *sums,
                                  const int tile, const int across) {
    const float *in[PN(pn_down)], *values = k->values;
    PN_V sum[PN(pn_across)][PN(pn_down)];
    PN_UNROLLED for (int j = 0; j < tile; j++) in[j] = k->in + where[j];
    PN_UNROLLED for (int v = 0; v < across; v++) PN_UNROLLED for (int j = 0; j < tile; j++)
        sum[v][j] = PN_LOAD(k->starts ? k->starts + v * PN_LANES
                                      : sums + PN_AT(v, k->sums_block) + j * 16);
    for (size_t i = 0; i < k->taps; i++, values += 16) {
        const size_t offset = k->offsets[i];
        PN_V read[PN(pn_across)];
        PN_UNROLLED for (int v = 0; v < across; v++) read[v] = PN_LOAD(values + PN_AT(v, k->block));
        PN_UNROLLED for (int j = 0; j < tile; j++) {
            const PN_V value = PN_ALL(in[j][offset]);
            PN_UNROLLED for (int v = 0; v < across; v++) sum[v][j] += value * read[v];
        }
    }
    PN_UNROLLED for (int v = 0; v < across; v++) PN_UNROLLED for (int j = 0; j < tile; j++)
        PN_STORE(sums + PN_AT(v, k->sums_block) + j * 16, sum[v][j]);
}

#define PN_COLUMN(n)                                                                               \
    case n:                                                                                        \
        if (k->vectors == (size_t)PN(pn_across)) PN(pn_column_tile)(k, where, sums, n, PN(pn_across)); \
        else if (k->vectors == 2) PN(pn_column_tile)(k, where, sums, n, 2);                        \
        else PN(pn_column_tile)(k, where, sums, n, 1);                                             \
        break;

static void PN(pn_column_some)(const struct PN(pn_column) * k, const pn_u32 *where, float *sums,
                               size_t tile) {
    switch (tile) {
        PN_COLUMN(1)
        PN_COLUMN(2)
#if PN_LANES > 1
        PN_COLUMN(3)
        PN_COLUMN(4)
        PN_COLUMN(5)
        PN_COLUMN(6)
#endif
    default: break;
    }
}

/* `count` positions by some vectors of filters; tiles differ by one position at most. */
static void PN(pn_column_tiles)(const struct PN(pn_column) * k, const pn_u32 *where, size_t count) {
    const size_t down = (size_t)PN(pn_down), tiles = (count + down - 1) / down;
    for (size_t tile = 0; tile < tiles; tile++) {
        const size_t from = count * tile / tiles, to = count * (tile + 1) / tiles;
        const float *next = k->next;
        for (size_t v = 0; v < k->vectors * PN_LANES; v += 16, next += k->block)
            pn_ahead(next + k->taps * tile / tiles * 16, next + k->taps * (tile + 1) / tiles * 16);
        PN(pn_column_some)(k, where + from, k->sums + from * 16, to - from);
    }
}

/* One filter's sums at `count` positions of a row, finished and put into its plane. */
PN_INLINE void PN(pn_column_placed)(const struct pn_conv *k, const float *from, const float *residual,
                                    float *out, size_t count) {
    for (size_t i = 0; i < count; i++, from += 16)
        out[i] = pn_bounded(*from + (k->has_residual ? residual[i] : 0.0F), k->activation, k->low,
                            k->high);
}

#if PN_LANES > 1
/* Four filters at `count` positions of a row, four by four; with `beyond` up to three more are written,
 * where a border or the next row is written later. Returns the positions that are done. */
PN_INLINE size_t PN(pn_columns_turned)(const struct pn_conv *k, const float *from,
                                       const float *residual, float *out, size_t count, int beyond) {
    const size_t plane = k->out.plane;
    const pn_four low = k->low - (pn_four){0}, high = k->high - (pn_four){0};
    size_t i = 0;
    for (; beyond ? i < count : i + 4 <= count; i += 4, from += 64) {
        const pn_four a = PN_QUAD(from), b = PN_QUAD(from + 16), c = PN_QUAD(from + 32);
        const pn_four d = PN_QUAD(from + 48);
        const pn_four ab = PN_MIXED(a, b, 0, 4, 1, 5), cd = PN_MIXED(c, d, 0, 4, 1, 5);
        const pn_four ba = PN_MIXED(a, b, 2, 6, 3, 7), dc = PN_MIXED(c, d, 2, 6, 3, 7);
        pn_four made[4] = {PN_MIXED(ab, cd, 0, 1, 4, 5), PN_MIXED(ab, cd, 2, 3, 6, 7),
                           PN_MIXED(ba, dc, 0, 1, 4, 5), PN_MIXED(ba, dc, 2, 3, 6, 7)};
        PN_UNROLLED for (int j = 0; j < 4; j++) {
            const size_t at = (size_t)j * plane + i;
            if (k->has_residual) made[j] += PN_QUAD(residual + at);
            if (k->activation) made[j] = pn_within(made[j], low, high);
            *(pn_four_loaded *)(void *)(out + at) = made[j];
        }
    }
    return i < count ? i : count;
}
#endif

/* The sums of 16 filters or fewer at positions `first` to `last`, finished and put into planes, with zeros
 * in the borders between. */
static void PN(pn_columns_placed)(const struct pn_conv *k, float *w, const float *sums, size_t c,
                                  size_t filters, size_t first, size_t last) {
    const struct pn_planes *t = &k->out;
    const size_t end = (t->height - 1) * t->stride + t->width;
    for (size_t j = 0; j < filters; j += 4) {
        float *out = w + t->at + (c + j) * t->plane;
        const float *residual = w + k->residual + (c + j) * t->plane, *from = sums + j;
        const size_t four = filters - j < 4 ? filters - j : 4;
        size_t y = first / t->width, x = first % t->width;
        for (size_t p = first, count; p < last; y++, x = 0, p += count, from += 16 * count) {
            const size_t at = y * t->stride + x;
            count = t->width - x < last - p ? t->width - x : last - p;
            size_t done = 0;
#if PN_LANES > 1
            if (four == 4)
                done = PN(pn_columns_turned)(k, from, residual + at, out + at, count, p + count < last);
#endif
            for (size_t i = 0; i < four; i++) {
                const size_t own = i * t->plane + at;
                PN(pn_column_placed)(k, from + done * 16 + i, residual + own + done, out + own + done,
                                     count - done);
                if (x + count == t->width && y + 1 < t->height)
                    for (size_t b = 0; b < t->stride - t->width; b++) out[own + count + b] = 0.0F;
            }
        }
        if (last == t->height * t->width)
            for (size_t i = 0; i < four; i++)
                memset(out + i * t->plane + end, 0, (t->plane - end) * sizeof(float));
    }
}

/* All sums of one or two blocks of 16 filters, from filter `c` of a group: PN_DEPTH taps at a time. */
static void PN(pn_columns_summed)(const struct pn_conv *k, const float *w, const float *data, size_t group,
                                  size_t c, size_t filters, const pn_u32 *where, size_t count,
                                  float *sums) {
    const size_t depths = (k->taps + PN_DEPTH - 1) / PN_DEPTH, padded = (k->group_out + 15) / 16 * 16;
    const size_t across = (size_t)PN(pn_across);
    const float *starts = data + k->bias + group * padded + c;
    const float *values = data + k->values + (group * padded + c) * k->taps;
    struct PN(pn_column) column = {0};
    column.in = w + k->in + group * k->group_step;
    column.block = k->taps * 16, column.sums_block = count * 16;
    for (size_t depth = 0; depth < depths; depth++) {
        const size_t from = k->taps * depth / depths, to = k->taps * (depth + 1) / depths;
        column.taps = to - from, column.offsets = pn_whole(data, k->offsets) + from;
        for (size_t f = 0; f < filters; f += column.vectors * PN_LANES) {
            const size_t vectors = (filters - f + PN_LANES - 1) / PN_LANES;
            column.vectors = vectors >= across ? across : vectors > 1 ? 2 : 1;
            column.values = values + PN_AT(f / PN_LANES, column.block) + from * 16;
            column.sums = sums + PN_AT(f / PN_LANES, column.sums_block);
            column.starts = depth ? NULL : starts + f;
            column.next = to < k->taps ? column.values + column.taps * 16
                                       : values + (filters + 15) / 16 * column.block;
            PN(pn_column_tiles)(&column, where, count);
        }
    }
}

/* Blocks of 16 filters of a group at some positions, as many at a time as vectors hold. */
static void PN(pn_columns_part)(const struct pn_conv *k, float *w, const float *data, size_t group,
                                const size_t blocks[2], const size_t positions[2]) {
    const size_t count = positions[1] - positions[0], step = (PN_LANES * PN(pn_across) + 15) / 16;
    float *sums = pn_scratch(w, k->scratch);
    pn_u32 *where = (pn_u32 *)(void *)(sums + step * count * 16);
    for (size_t p = positions[0]; p < positions[1]; p++)
        where[p - positions[0]] = (pn_u32)(p / k->out.width * k->out.stride + p % k->out.width);
    for (size_t b = blocks[0]; b < blocks[1]; b += step) {
        const size_t c = b * 16, most = (blocks[1] - b < step ? blocks[1] - b : step) * 16;
        const size_t filters = k->group_out - c < most ? k->group_out - c : most;
        PN(pn_columns_summed)(k, w, data, group, c, filters, where, count, sums);
        for (size_t f = 0; f < filters; f += 16)
            PN(pn_columns_placed)(k, w, sums + f * count, group * k->group_out + c + f,
                                  filters - f < 16 ? filters - f : 16, positions[0], positions[1]);
    }
}

static void PN(pn_columns)(const struct pn_conv *k, float *w, const float *data) {
    const size_t blocks = (k->group_out + 15) / 16, groups = k->out.channels / k->group_out;
    const size_t all = k->out.height * k->out.width, passes = (all + k->together - 1) / k->together;
    const size_t parts = passes < 2 * PN_PARTS ? PN_PARTS : 1;
    memset(w + k->out.at - k->out.lead, 0, k->out.lead * sizeof(float));
    PN_PARALLEL for (long job = 0; job < (long)(groups * passes * parts); job++) {
        const size_t own = (size_t)job % parts, pass = (size_t)job / parts % passes;
        const size_t part[2] = {blocks * own / parts, blocks * (own + 1) / parts};
        const size_t positions[2] = {all * pass / passes, all * (pass + 1) / passes};
        PN(pn_columns_part)(k, w, data, (size_t)job / parts / passes, part, positions);
    }
}

#undef PN_AT
#undef PN_COLUMN
