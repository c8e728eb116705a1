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
    const size_t tiles = (vectors + PN_TILE - 1) / PN_TILE;
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
        pn_split(&split, w, data);
        one.in += scratch - k->phases->out;
        one.out.at += c * k->out.plane, one.residual += c * k->out.plane, one.out.channels = 1;
        /* Only the first plane has zeros before it; others follow the zeros that end a plane. */
        one.out.lead = c ? 0 : k->out.lead;
        one.bias += c, one.weights.first += c;
        PN(pn_sparse_plane)(&one, w, data);
    }
}

/* One output of a depthwise convolution of step 2 whose kernel rows `first` to `last` lie inside; of
 * its columns some do not. */
PN_INLINE float PN(pn_halved_one)(const struct pn_conv *k, const float *in, const float *weights,
                                  float sum, size_t first, size_t last, long left, const int side) {
    const long beside = (long)k->in_width - left, from = left < 0 ? -left : 0;
    const long to = beside < side ? beside : side;
    for (size_t i = first; i < last; i++)
        for (long j = from; j < to; j++)
            sum += weights[i * (size_t)side + (size_t)j] * in[(long)(i * k->in_stride) + left + j];
    return sum;
}

#if PN_LANES > 1
/* Four outputs in a row whose kernel rows `first` to `last` lie inside: even and odd columns of what is
 * read are two shuffles of the same loads. */
PN_INLINE pn_four PN(pn_halved_four)(const struct pn_conv *k, const float *in, const float *weights,
                                     float bias, size_t first, size_t last, const int side) {
    pn_four sum[5] = {bias - (pn_four){0}}; /* a sum for each column: none waits for another */
    for (size_t i = first; i < last; i++) {
        const float *from = in + i * k->in_stride, *own = weights + i * (size_t)side;
        PN_UNROLLED for (int j = 0; j < side; j += 2) {
            const pn_four low = PN_QUAD(from + j), high = PN_QUAD(from + j + 4);
            sum[j] += own[j] * PN_MIXED(low, high, 0, 2, 4, 6);
            if (j + 1 < side) sum[j + 1] += own[j + 1] * PN_MIXED(low, high, 1, 3, 5, 7);
        }
    }
    return side == 3 ? sum[0] + sum[1] + sum[2] : sum[0] + sum[1] + (sum[2] + sum[3]) + sum[4];
}
#endif

/* A row of outputs: number by number where columns lie outside. */
PN_INLINE void PN(pn_halved_row)(const struct pn_conv *k, const float *in, const float *weights,
                                 float bias, const float *residual, float *out, long y, const int side) {
    const long width = (long)k->out.width, left = (long)k->left, top = 2 * y - (long)k->top;
    const long below = (long)k->in_height - top;
    const size_t first = top < 0 ? (size_t)-top : 0;
    const size_t last = (size_t)(below < 0 ? 0 : below < side ? below : side);
    long begin = (left + 1) / 2, end = begin;
    in += top * (long)k->in_stride;
#if PN_LANES > 1
    const long inside = ((long)k->in_width - side + left) / 2 + 1;
    const pn_four low = k->low - (pn_four){0}, high = k->high - (pn_four){0};
    end = inside < width ? inside : width;
    if (end - begin < 4) end = begin;
    for (long x = begin; x < end; x = x + 8 <= end || x + 4 == end ? x + 4 : end - 4) {
        pn_four made = PN(pn_halved_four)(k, in + 2 * x - left, weights, bias, first, last, side);
        if (k->has_residual) made += PN_QUAD(residual + x);
        if (k->activation) made = pn_within(made, low, high);
        *(pn_four_loaded *)(void *)(out + x) = made;
    }
#endif
    for (long x = begin > 0 ? 0 : end; x < width; x = x + 1 == begin ? end : x + 1) {
        const float made = PN(pn_halved_one)(k, in, weights, bias, first, last, 2 * x - left, side);
        out[x] = pn_bounded(made + (k->has_residual ? residual[x] : 0.0F), k->activation, k->low, k->high);
    }
}

/* Depthwise convolutions of 3x3 or 5x5 with steps of 2: they read their input where it stands. */
static void PN(pn_halved)(const struct pn_conv *k, float *w, const float *data) {
    const struct pn_planes *t = &k->out;
    memset(w + t->at - t->lead, 0, t->lead * sizeof(float));
    PN_PARALLEL for (long channel = 0; channel < (long)t->channels; channel++) {
        const size_t c = (size_t)channel;
        const float *in = w + k->in + c * k->group_step, *own = data + k->dense + c * k->side * k->side;
        for (size_t y = 0; y < t->height; y++) {
            const float *residual = w + k->residual + c * t->plane + y * t->stride;
            float *out = w + t->at + c * t->plane + y * t->stride;
            if (k->side == 3) PN(pn_halved_row)(k, in, own, data[k->bias + c], residual, out, (long)y, 3);
            else PN(pn_halved_row)(k, in, own, data[k->bias + c], residual, out, (long)y, 5);
        }
        pn_clean(t, w + t->at + c * t->plane, 0, 0, t->height * t->stride);
    }
}

#undef PN_DEEP
#undef PN_ROWS_OF_THREE
