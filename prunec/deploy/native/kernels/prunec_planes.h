/* Kernels over planes, number by number: phases of strided convolutions, resizing, sparse linear layers. */

/* Every `step`-th of `count` numbers. */
#ifdef PN_VECTORS
static inline void pn_every(float *to, const float *from, long count, long step) {
    long x = 0;
    if (step == 2 && count >= 4)
        /* The last four end where the row ends: what they share with others is made twice. */
        for (;; x = x + 8 <= count ? x + 4 : count - 4) {
            const pn_four low = PN_QUAD(from + 2 * x), high = PN_QUAD(from + 2 * x + 4);
            *(pn_four_loaded *)(void *)(to + x) = PN_MIXED(low, high, 0, 2, 4, 6);
            if (x + 4 == count) return;
        }
    for (; x < count; x++) to[x] = from[x * step];
}
#else
static inline void pn_every(float *to, const float *from, long count, long step) {
    for (long x = 0; x < count; x++) to[x] = from[x * step];
}
#endif

/* Phase (y, x) holds rows first_y + step_y * i and columns first_x + step_x * j of the input; zeros where
 * that is outside, and behind its rows. */
static inline void pn_phase(const struct pn_phases *k, const float *in, float *out, long first_y,
                            long first_x) {
    const long rows = (long)k->rows, stride = (long)k->out_stride, step = (long)k->step_x;
    long x = 0, last = (long)k->columns;
    while (x < last && first_x + x * step < 0) x++;
    while (last > x && first_x + (last - 1) * step >= (long)k->width) last--;
    for (long y = 0; y < rows; y++) {
        const long row = first_y + y * (long)k->step_y;
        const int inside = row >= 0 && row < (long)k->height;
        const float *from = in + row * (long)k->stride + first_x;
        float *to = out + y * stride;
        const long end = inside ? last : x;
        for (long i = 0; i < x; i++) to[i] = 0.0F;
        if (!inside || last <= x) {
        } else if (step == 1) memcpy(to + x, from + x, (size_t)(last - x) * sizeof(float));
        else pn_every(to + x, from + x * step, last - x, step);
        for (long i = end; i < stride; i++) to[i] = 0.0F;
    }
    memset(out + rows * stride, 0, (k->size - (size_t)(rows * stride)) * sizeof(float));
}

/* The phases of one channel. */
static inline void pn_split_one(const struct pn_phases *k, float *w, const float *data, size_t c) {
    const pn_u32 *firsts = pn_whole(data, k->at);
    for (size_t i = 0; i < k->count; i++)
        pn_phase(k, w + k->in + c * k->plane, w + k->out + (c * k->count + i) * k->out_plane,
                 /* Stored without a sign; a padded phase begins at -1 or before. */
                 (long)(int32_t)firsts[2 * i], (long)(int32_t)firsts[2 * i + 1]);
}

static inline void pn_split(const struct pn_phases *k, float *w, const float *data) {
    PN_PARALLEL for (long c = 0; c < (long)k->channels; c++) pn_split_one(k, w, data, (size_t)c);
}

/* How many of the places of a window along an axis count: those inside, or with `padded` those before the
 * end of the padding. ONNX: count_include_pad counts the padding, but not what lies beyond it when sizes are
 * rounded up. */
static inline long pn_counted(long start, long kernel, long gap, size_t size, int padded, long end) {
    long count = 0;
    for (long i = 0; i < kernel; i++) {
        const long place = start + i * gap;
        count += padded ? place < end : place >= 0 && place < (long)size;
    }
    return count;
}

/* Bilinear, and nearest with shares of 0: places and shares are computed at export. */
static inline void pn_resized(const struct pn_resize *k, float *w, const float *data) {
    const struct pn_planes *t = &k->out;
    const pn_u32 *rows = pn_whole(data, k->rows), *columns = pn_whole(data, k->columns);
    for (size_t c = 0; c < t->channels; c++)
        for (size_t y = 0; y < t->height; y++) {
            const float *in = w + k->in + c * k->plane, down = data[k->row_shares + y];
            const float *upper = in + rows[2 * y] * k->stride, *lower = in + rows[2 * y + 1] * k->stride;
            float *out = w + t->at + c * t->plane + y * t->stride;
            for (size_t x = 0; x < t->width; x++) {
                const size_t i = columns[2 * x], j = columns[2 * x + 1];
                const float over = data[k->column_shares + x];
                const float above = upper[i] + over * (upper[j] - upper[i]);
                const float below = lower[i] + over * (lower[j] - lower[i]);
                out[x] = above + down * (below - above);
            }
        }
    pn_clean_all(t, w);
}

/* Outputs in parts of equal size, each by one thread. */
static inline void pn_sparse_linear(const struct pn_linear *k, float *w, const float *data) {
    const pn_u16 *counts = pn_short(data, k->weights.counts);
    const float *values = (k->weights.widened ? w : data) + k->weights.values;
    PN_PARALLEL for (long part = 0; part < PN_PARTS; part++) {
        const size_t first = k->outputs * (size_t)part / PN_PARTS;
        const size_t last = k->outputs * ((size_t)part + 1) / PN_PARTS;
        const size_t before = pn_before(&k->weights, data, first);
        for (size_t row = 0; row < k->rows; row++) {
            const float *in = w + k->in + row * k->in_step;
            float *out = w + k->out + row * k->out_step;
            for (size_t o = first, i = before; o < last; i += counts[o++]) {
                const float sum = pn_row(&k->weights, values, data, in, i, i + counts[o]);
                out[o] = pn_bounded(sum + data[k->bias + o], k->activation, k->low, k->high);
            }
        }
    }
}
