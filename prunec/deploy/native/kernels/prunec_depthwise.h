/* Depthwise convolutions, included by prunec_vectors.h for each kind of processor. */

/* PN_DEEP rows at most of one channel and one vector of columns: what an input row holds is loaded once
 * for the three output rows that read it. `weights` are the nine of the filter, broadcast. */
#define PN_DEEP 4

PN_INLINE void PN(pn_rows_of_three)(const struct pn_conv *k, const PN_V *weights, float bias,
                                    const float *in, const float *residual, float *out,
                                    const int rows) {
    const size_t stride = k->out.stride;
    PN_V sum[PN_DEEP];
    PN_UNROLLED for (int r = 0; r < rows; r++) sum[r] = PN_ALL(bias);
    PN_UNROLLED for (int y = 0; y < rows + 2; y++) {
        const float *from = in + (size_t)y * stride;
        PN_UNROLLED for (int x = 0; x < 3; x++) {
            const PN_V read = PN_LOAD(from + x);
            PN_UNROLLED for (int r = 0; r < rows; r++) if (y - r >= 0 && y - r < 3)
                sum[r] += weights[(y - r) * 3 + x] * read;
        }
    }
    PN_UNROLLED for (int r = 0; r < rows; r++) {
        const size_t at = (size_t)r * stride;
        if (k->has_residual) sum[r] += PN_LOAD(residual + at);
        if (k->activation) sum[r] = PN_MIN(PN_MAX(sum[r], k->low), k->high);
        PN_STORE(out + at, sum[r]);
    }
}

#define PN_ROWS_OF_THREE(n) \
    case n: \
        for (size_t i = 0; i < vectors; i++) { \
            /* The last vector ends where the row ends: what it shares with another is made twice. */ \
            const size_t last = i * PN_LANES + PN_LANES > t->width && t->width >= PN_LANES; \
            const size_t p = y * t->stride + (last ? t->width - PN_LANES : i * PN_LANES); \
            PN(pn_rows_of_three)(k, weights, bias, in + p, residual + p, out + p, n); \
        } \
        break;

/* 3x3 depthwise convolutions of step 1; planes too narrow for a vector take the sparse kernel. */
static void PN(pn_three)(const struct pn_conv *k, float *w, const float *data) {
    const struct pn_planes *t = &k->out;
    const size_t vectors = (t->width + PN_LANES - 1) / PN_LANES;
    if (t->stride < PN_LANES) {
        PN(pn_sparse)(k, w, data);
        return;
    }
    memset(w + t->at - t->lead, 0, t->lead * sizeof(float));
    PN_PARALLEL for (long channel = 0; channel < (long)t->channels; channel++) {
        const size_t c = (size_t)channel;
        const float *in = w + k->in + c * k->group_step, *own = data + k->dense + c * 9;
        const float *residual = w + k->residual + c * t->plane, bias = data[k->bias + c];
        float *out = w + t->at + c * t->plane;
        PN_V weights[9];
        PN_UNROLLED for (int i = 0; i < 9; i++) weights[i] = PN_ALL(own[i]);
        for (size_t y = 0; y < t->height; y += PN_DEEP) {
            switch (t->height - y < PN_DEEP ? t->height - y : PN_DEEP) {
                PN_ROWS_OF_THREE(1)
                PN_ROWS_OF_THREE(2)
                PN_ROWS_OF_THREE(3)
                PN_ROWS_OF_THREE(4)
            default: break;
            }
        }
        pn_clean(t, out, 0, 0, t->height * t->stride);
    }
}

/* All tiles of the one plane of a convolution, by this thread. */
static void PN(pn_sparse_plane)(const struct pn_conv *k, float *w, const float *data) {
    const size_t vectors = (k->positions + PN_LANES - 1) / PN_LANES;
    const size_t tiles = (vectors + PN_LONG - 1) / PN_LONG;
    memset(w + k->out.at - k->out.lead, 0, k->out.lead * sizeof(float));
    for (size_t tile = 0; tile < tiles; tile++) {
        const size_t from = vectors * tile / tiles, to = vectors * (tile + 1) / tiles;
        PN(pn_sparse_some)(k, w, data, from * PN_LANES, 0, 1, to - from);
    }
}

/* Depthwise convolutions with steps: the phases of a channel lie in scratch memory while they are read,
 * and need not be written further away than the cache. */
static void PN(pn_stepped)(const struct pn_conv *k, float *w, const float *data) {
    PN_PARALLEL for (long channel = 0; channel < (long)k->out.channels; channel++) {
        const size_t c = (size_t)channel;
        const size_t scratch = (size_t)(pn_scratch(w, k->phases->out) - w);
        struct pn_phases split = *k->phases;
        struct pn_conv one = *k;
        split.in += c * split.plane, split.channels = 1, split.out = scratch;
        pn_split_one(&split, w, data, 0);
        one.in += scratch - k->phases->out;
        one.out.at += c * k->out.plane, one.residual += c * k->out.plane, one.out.channels = 1;
        /* Only the first plane has zeros before it; others follow the zeros that end a plane. */
        one.out.lead = c ? 0 : k->out.lead;
        one.bias += c, one.weights.first += c;
        PN(pn_sparse_plane)(&one, w, data);
    }
}

/* A vector of outputs in a row, of step 2: even and odd columns of what is read are two shuffles of the same
 * loads. A sum for each column: none waits for another. */
#define PN_HALVED(name, kind, lanes, load, even, odd)                                              \
    PN_INLINE kind PN(name)(const struct pn_conv *k, const float *in, const float *weights,        \
                            float bias, const int side) {                                          \
        kind sum[5] = {bias - (kind){0}};                                                          \
        PN_UNROLLED for (int i = 0; i < side; i++) {                                               \
            const float *from = in + (size_t)i * k->in_stride, *own = weights + i * side;          \
            PN_UNROLLED for (int j = 0; j < side; j += 2) {                                        \
                const kind low = load(from + j), high = load(from + j + (lanes));                  \
                sum[j] += own[j] * even(low, high);                                                \
                if (j + 1 < side) sum[j + 1] += own[j + 1] * odd(low, high);                       \
            }                                                                                      \
        }                                                                                          \
        return side == 3 ? sum[0] + sum[1] + sum[2]                                                \
                         : sum[0] + sum[1] + (sum[2] + sum[3]) + sum[4];                           \
    }
#if PN_LANES == 1
#define PN_EVEN(a, b) (a)
#define PN_ODD(a, b) (b)
#elif PN_LANES == 4
#define PN_EVEN(a, b) PN_PICKED(a, b, 0, 2, 4, 6)
#define PN_ODD(a, b) PN_PICKED(a, b, 1, 3, 5, 7)
#elif PN_LANES == 8
#define PN_EVEN(a, b) PN_PICKED(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define PN_ODD(a, b) PN_PICKED(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#else
#define PN_EVEN(a, b) PN_PICKED(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define PN_ODD(a, b) PN_PICKED(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#endif
PN_HALVED(pn_halved_wide, PN_V, PN_LANES, PN_LOAD, PN_EVEN, PN_ODD)
#if PN_LANES > 4
#define PN_EVEN_OF_FOUR(a, b) PN_MIXED(a, b, 0, 2, 4, 6)
#define PN_ODD_OF_FOUR(a, b) PN_MIXED(a, b, 1, 3, 5, 7)
PN_HALVED(pn_halved_four, pn_four, 4, PN_QUAD, PN_EVEN_OF_FOUR, PN_ODD_OF_FOUR)
#undef PN_EVEN_OF_FOUR
#undef PN_ODD_OF_FOUR
#endif

/* Where vector x of a row begins: the last one ends where the row ends, if the row is as long as a vector;
 * else it reaches beyond it, where a border or the next row is written later. */
#define PN_BEGIN(x, lanes) ((x) + (lanes) > width && width >= (lanes) ? width - (lanes) : (x))

/* A row of outputs: in fours where a whole vector would be filled by half at most. */
PN_INLINE void PN(pn_halved_row)(const struct pn_conv *k, const float *in, const float *weights,
                                 float bias, const float *residual, float *out, const int side) {
    const size_t width = k->out.width;
#if PN_LANES > 4
    if (width * 2 <= PN_LANES) {
        const pn_four low = k->low - (pn_four){0}, high = k->high - (pn_four){0};
        for (size_t i = 0; i < width; i += 4) {
            const size_t x = PN_BEGIN(i, 4);
            pn_four made = PN(pn_halved_four)(k, in + 2 * x, weights, bias, side);
            if (k->has_residual) made += PN_QUAD(residual + x);
            if (k->activation) made = pn_within(made, low, high);
            *(pn_four_loaded *)(void *)(out + x) = made;
        }
        return;
    }
#endif
    for (size_t i = 0; i < width; i += PN_LANES) {
        const size_t x = PN_BEGIN(i, PN_LANES);
        PN_V made = PN(pn_halved_wide)(k, in + 2 * x, weights, bias, side);
        if (k->has_residual) made += PN_LOAD(residual + x);
        if (k->activation) made = PN_MIN(PN_MAX(made, k->low), k->high);
        PN_STORE(out + x, made);
    }
}

/* Depthwise convolutions of 3x3 or 5x5 with steps of 2: they read their input where it stands. */
static void PN(pn_halved)(const struct pn_conv *k, float *w, const float *data) {
    const struct pn_planes *t = &k->out;
    memset(w + t->at - t->lead, 0, t->lead * sizeof(float));
    PN_PARALLEL for (long channel = 0; channel < (long)t->channels; channel++) {
        const size_t c = (size_t)channel;
        const float *in = w + k->in + c * k->group_step, *own = data + k->dense + c * k->side * k->side;
        for (size_t y = 0; y < t->height; y++, in += 2 * k->in_stride) {
            const float *residual = w + k->residual + c * t->plane + y * t->stride;
            float *out = w + t->at + c * t->plane + y * t->stride;
            if (k->side == 3) PN(pn_halved_row)(k, in, own, data[k->bias + c], residual, out, 3);
            else PN(pn_halved_row)(k, in, own, data[k->bias + c], residual, out, 5);
        }
        pn_clean(t, w + t->at + c * t->plane, 0, 0, t->height * t->stride);
    }
}

#undef PN_HALVED
#undef PN_EVEN
#undef PN_ODD
#undef PN_BEGIN
#undef PN_DEEP
#undef PN_ROWS_OF_THREE
