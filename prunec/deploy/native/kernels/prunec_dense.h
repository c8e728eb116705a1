/* Dense convolutions as products of matrices, included by prunec_vectors.h for each kind of processor.
 *
 * What a tile of output positions reads is packed into a panel, tap by tap, without borders; blocks of
 * PN_ROWS filters pass over it. The sums of PN_ROWS filters over PN_WIDE vectors of positions stay in
 * registers. PN_DEPTH taps at a time, so that a panel stays in the first-level cache; the sums of longer
 * filters wait in the scratch memory between. As many panels as it holds are packed together, so that
 * weights are read as seldom as can be.
 */

#ifndef PN_TOGETHER
#define PN_TOGETHER 16
#endif
enum { PN(pn_wide) = PN_TILE / PN_ROWS, PN(pn_panel) = PN_TILE / PN_ROWS * PN_LANES };

/* Where consecutive positions of an output lie in a plane: pieces of rows. */
struct PN(pn_pieces) {
    size_t count, first, last;
    size_t row, wide; /* where the row of the first position begins; vectors of the tile */
    size_t at[PN_TILE / PN_ROWS * PN_LANES], from[PN_TILE / PN_ROWS * PN_LANES];
    size_t length[PN_TILE / PN_ROWS * PN_LANES];
};

/* `count` positions from number `first`: where they stand in a panel, in a plane, and how many in a row. */
static void PN(pn_divided)(const struct pn_planes *t, size_t first, size_t count,
                           struct PN(pn_pieces) * pieces) {
    size_t y = first / t->width, x = first % t->width, at = 0;
    pieces->count = 0, pieces->first = y * t->stride + x;
    while (at < count) {
        const size_t left = t->width - x, length = left < count - at ? left : count - at;
        pieces->at[pieces->count] = at, pieces->from[pieces->count] = y * t->stride + x;
        pieces->length[pieces->count++] = length;
        at += length, x = 0, y++;
    }
    pieces->last = (first + count) / t->width * t->stride + (first + count) % t->width;
}

/* What the taps `first` to `last` read at a tile's positions, one row of the panel for each. The last
 * vector of a piece reaches beyond it: what is written there is written again, or never read. */
static void PN(pn_packed)(const float *in, const pn_u32 *offsets, size_t first, size_t last,
                          const struct PN(pn_pieces) * pieces, float *panel) {
    if (pieces->count == 1 && pieces->length[0] > (size_t)(PN(pn_wide) - 1) * PN_LANES) {
        for (size_t i = first; i < last; i++, panel += PN(pn_panel)) {
            const float *taps = in + offsets[i] + pieces->from[0];
            PN_V read[PN_TILE / PN_ROWS];
            PN_UNROLLED for (int t = 0; t < PN(pn_wide); t++) read[t] = PN_LOAD(taps + t * PN_LANES);
            PN_UNROLLED for (int t = 0; t < PN(pn_wide); t++) PN_STORE(panel + t * PN_LANES, read[t]);
        }
        return;
    }
    for (size_t i = first; i < last; i++, panel += PN(pn_panel)) {
        const float *taps = in + offsets[i];
        for (size_t s = 0; s < pieces->count; s++) {
            const float *from = taps + pieces->from[s];
            float *to = panel + pieces->at[s];
            for (size_t j = 0; j < pieces->length[s]; j += PN_LANES)
                PN_STORE(to + j, PN_LOAD(from + j));
        }
    }
}

/* What PN_ROWS filters make of `wide` vectors of a panel: begun with `starts`, or with what taps before
 * made; left in `sums`, or finished and stored in a row at position `p` of the planes of `rows`. */
struct PN(pn_target) {
    const struct pn_conv *k;
    float *w, *sums;
    const float *starts;
    size_t c, rows, p, row;
    int straight;
};

PN_INLINE void PN(pn_block)(const float *values, const float *panel, size_t taps,
                            const struct PN(pn_target) * to, const int tile) {
    const struct pn_conv *k = to->k;
    float *sums = to->sums;
    const int wide = tile;
    PN_V sum[PN_ROWS][PN_TILE / PN_ROWS];
    PN_UNROLLED for (int j = 0; j < PN_ROWS; j++) PN_UNROLLED for (int t = 0; t < wide; t++) {
        if (to->starts) sum[j][t] = PN_ALL(to->starts[j]);
        else sum[j][t] = PN_LOAD(sums + j * PN(pn_panel) + t * PN_LANES);
    }
    for (size_t i = 0; i < taps; i++, values += PN_ROWS, panel += PN(pn_panel)) {
        PN_V read[PN_TILE / PN_ROWS];
        PN_UNROLLED for (int t = 0; t < wide; t++) {
            read[t] = PN_LOAD(panel + t * PN_LANES);
            PN_HELD(read[t]);
        }
        PN_UNROLLED for (int j = 0; j < PN_ROWS; j++) {
            const PN_V value = PN_ALL(values[j]);
            PN_UNROLLED for (int t = 0; t < wide; t++) sum[j][t] += value * read[t];
        }
    }
    PN_UNROLLED for (int j = 0; j < PN_ROWS; j++) {
        if (!to->straight) {
            PN_UNROLLED for (int t = 0; t < wide; t++)
                PN_STORE(sums + j * PN(pn_panel) + t * PN_LANES, sum[j][t]);
        } else if ((size_t)j < to->rows) {
            const size_t at = (to->c + (size_t)j) * k->out.plane, p = to->p;
            float *out = to->w + k->out.at + at;
            PN_FINISH(sum[j], out + p, to->w + k->residual + at + p);
            pn_clean(&k->out, out, to->row, p, p + (size_t)tile * PN_LANES);
        }
    }
}

#define PN_BLOCK(n) \
    case n: PN(pn_block)(values, panel, taps, to, n); break;

static void PN(pn_blocked)(const float *values, const float *panel, size_t taps,
                           const struct PN(pn_target) * to, size_t wide) {
    switch (wide) {
        PN_BLOCK(1)
#if PN_TILE / PN_ROWS > 1
        PN_BLOCK(2)
        PN_BLOCK(3)
#endif
#if PN_TILE / PN_ROWS > 3
        PN_BLOCK(4)
        PN_BLOCK(5)
        PN_BLOCK(6)
#endif
    default: break;
    }
}

/* `length` sums of a filter, finished: residual, activation. With `beyond` the last vector may write
 * behind them, where the next piece writes again. */
PN_INLINE void PN(pn_piece)(const struct pn_conv *k, const float *from, const float *beside, float *to,
                            size_t length, const int beyond) {
    size_t j = 0;
    for (; beyond ? j < length : j + PN_LANES <= length; j += PN_LANES) {
        PN_V made = PN_LOAD(from + j);
        if (k->has_residual) made += PN_LOAD(beside + j);
        if (k->activation) made = PN_MIN(PN_MAX(made, k->low), k->high);
        PN_STORE(to + j, made);
    }
    for (; j < length; j++)
        to[j] = pn_bounded(from[j] + (k->has_residual ? beside[j] : 0.0F), k->activation, k->low,
                           k->high);
}

/* The sums of one filter, finished and stored piece by piece; zeros in the borders between. */
static void PN(pn_placed)(const struct pn_conv *k, float *w, size_t c, const float *sums,
                          const struct PN(pn_pieces) * pieces) {
    float *out = w + k->out.at + c * k->out.plane;
    const float *residual = w + k->residual + c * k->out.plane;
    const size_t end = pieces->count - 1;
    for (size_t s = 0; s < end; s++)
        PN(pn_piece)(k, sums + pieces->at[s], residual + pieces->from[s], out + pieces->from[s],
                     pieces->length[s], 1);
    PN(pn_piece)(k, sums + pieces->at[end], residual + pieces->from[end], out + pieces->from[end],
                 pieces->length[end], 0);
    pn_clean(&k->out, out, pieces->row, pieces->first, pieces->last);
}

/* A part of the blocks of filters of a group over the tiles `first` to `last`. */
struct PN(pn_part) {
    size_t group, first, last, from, to; /* tiles, and taps */
    size_t size;                         /* floats of a panel */
    float *panels, *sums;                /* sums of all blocks, where taps are left out; else NULL */
};

/* Whether a plane is one row of positions, those of its borders among them: where taps are few, or rows
 * so long that the borders are less than a 32nd. Else pieces of rows cost less than the borders. */
static int PN(pn_straight)(const struct pn_conv *k) {
    const size_t inside = k->out.height * k->out.width;
    return k->taps <= PN_DEPTH || (k->positions - inside) * 32 < inside;
}

static size_t PN(pn_count)(const struct pn_conv *k) {
    return PN(pn_straight)(k) ? k->positions : k->out.height * k->out.width;
}

static size_t PN(pn_vectors)(const struct pn_conv *k) {
    return (PN(pn_count)(k) + PN_LANES - 1) / PN_LANES;
}

/* The first vector of a tile: tiles differ by one vector at most. */
static size_t PN(pn_start)(const struct pn_conv *k, size_t tile) {
    const size_t vectors = PN(pn_vectors)(k), wide = (size_t)PN(pn_wide);
    return vectors * tile / ((vectors + wide - 1) / wide);
}

static void PN(pn_pieces_of)(const struct pn_conv *k, size_t tile, struct PN(pn_pieces) * pieces) {
    const size_t from = PN(pn_start)(k, tile) * PN_LANES, all = PN(pn_count)(k);
    const size_t to = PN(pn_start)(k, tile + 1) * PN_LANES;
    struct pn_planes planes = k->out;
    if (PN(pn_straight)(k)) planes.width = planes.stride = all;
    PN(pn_divided)(&planes, from, (to < all ? to : all) - from, pieces);
    pieces->row = pieces->first / k->out.stride * k->out.stride;
    pieces->wide = (to - from) / PN_LANES;
}

static void PN(pn_pack)(const struct pn_conv *k, const float *w, const float *data,
                        const struct PN(pn_part) * part, size_t tile) {
    struct PN(pn_pieces) pieces;
    PN(pn_pieces_of)(k, tile, &pieces);
    PN(pn_packed)(w + k->in + part->group * k->group_step, pn_whole(data, k->offsets), part->from,
                  part->to, &pieces,
                  part->panels + (tile - part->first) * part->size);
}

/* A block of filters by one panel. */
static void PN(pn_multiply)(const struct pn_conv *k, float *w, const float *data,
                            const struct PN(pn_part) * part, size_t tile,
                            const struct PN(pn_pieces) * pieces, size_t b, const float *starts) {
    const size_t blocks = (k->group_out + PN_ROWS - 1) / PN_ROWS, taps = part->to - part->from;
    const size_t c = part->group * k->group_out + b * PN_ROWS, left = k->group_out - b * PN_ROWS;
    const size_t rows = left < PN_ROWS ? left : PN_ROWS;
    const int straight = PN(pn_straight)(k);
    float own[PN_ROWS * PN_TILE / PN_ROWS * PN_LANES], *sums = own;
    if (part->sums)
        sums = part->sums + ((tile - part->first) * blocks + b) * PN_ROWS * PN(pn_panel);
    const struct PN(pn_target) to = {k, w, sums, part->from ? NULL : starts, c, rows, pieces->first,
                                     pieces->row, straight && part->to == k->taps};
    PN(pn_blocked)(data + k->values + ((part->group * blocks + b) * k->taps + part->from) * PN_ROWS,
                   part->panels + (tile - part->first) * part->size, taps, &to, pieces->wide);
    if (part->to == k->taps && !straight)
        for (size_t j = 0; j < rows; j++)
            PN(pn_placed)(k, w, c + j, sums + j * PN(pn_panel), pieces);
}

static size_t PN(pn_least)(size_t a, size_t b) { return a < b ? a : b; }

/* One part of the filters of a group over some tiles, with scratch memory of its own. */
static void PN(pn_dense_part)(const struct pn_conv *k, float *w, const float *data,
                              struct PN(pn_part) part, size_t depth, size_t first, size_t last) {
    struct PN(pn_pieces) pieces[PN_TOGETHER];
    for (size_t tile = part.first; tile < part.last; tile++)
        PN(pn_pieces_of)(k, tile, &pieces[tile - part.first]);
    for (part.from = 0; part.from < k->taps; part.from = part.to) {
        part.to = PN(pn_least)(part.from + depth, k->taps);
        for (size_t tile = part.first; tile < part.last; tile++)
            PN(pn_pack)(k, w, data, &part, tile);
        for (size_t b = first; b < last; b++) {
            const size_t c = part.group * k->group_out + b * PN_ROWS, left = k->group_out - b * PN_ROWS;
            float starts[PN_ROWS] = {0.0F};
            for (size_t j = 0; j < PN_ROWS && j < left; j++) starts[j] = data[k->bias + c + j];
            for (size_t tile = part.first; tile < part.last; tile++)
                PN(pn_multiply)(k, w, data, &part, tile, &pieces[tile - part.first], b, starts);
        }
    }
}

static void PN(pn_dense)(const struct pn_conv *k, float *w, const float *data) {
    const size_t blocks = (k->group_out + PN_ROWS - 1) / PN_ROWS, wide = (size_t)PN(pn_wide);
    const size_t tiles = (PN(pn_vectors)(k) + wide - 1) / wide;
    const size_t depths = (k->taps + PN_DEPTH - 1) / PN_DEPTH;
    const size_t depth = (k->taps + depths - 1) / depths, size = depth * PN(pn_panel) + PN_LANES;
    const size_t sums = depths > 1 ? blocks * PN_ROWS * PN(pn_panel) : 0;
    const size_t fits = PN(pn_least)(k->scratch_size / (size + sums), tiles);
    const size_t together = PN(pn_least)(fits, PN_TOGETHER);
    const size_t passes = (tiles + together - 1) / together;
    const size_t parts = passes < 2 * PN_PARTS ? PN_PARTS : 1, groups = k->out.channels / k->group_out;
    memset(w + k->out.at - k->out.lead, 0, k->out.lead * sizeof(float));
    PN_PARALLEL for (long job = 0; job < (long)(groups * passes * parts); job++) {
        const size_t own = (size_t)job % parts, pass = (size_t)job / parts % passes;
        struct PN(pn_part) part = {0};
        part.group = (size_t)job / parts / passes, part.size = size;
        part.first = tiles * pass / passes, part.last = tiles * (pass + 1) / passes;
        part.panels = pn_scratch(w, k->scratch);
        part.sums = sums ? part.panels + together * size : NULL;
        PN(pn_dense_part)(k, w, data, part, depth, blocks * own / parts, blocks * (own + 1) / parts);
    }
}

#undef PN_BLOCK
