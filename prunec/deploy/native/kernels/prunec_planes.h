/* Kernels over planes, number by number: phases of strided convolutions, pooling, resizing. */

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

static inline void pn_split(const struct pn_phases *k, float *w, const float *data) {
    const pn_u32 *firsts = pn_whole(data, k->at);
    for (size_t c = 0; c < k->channels; c++)
        for (size_t i = 0; i < k->count; i++)
            pn_phase(k, w + k->in + c * k->plane, w + k->out + (c * k->count + i) * k->out_plane,
                     /* Stored without a sign; a padded phase begins at -1 or before. */
                     (long)(int32_t)firsts[2 * i], (long)(int32_t)firsts[2 * i + 1]);
}

static inline float pn_pooled(const struct pn_pool *k, const float *in, long y, long x) {
    const long top = y * k->step_y - k->top, left = x * k->step_x - k->left;
    float sum = 0.0F, largest = -INFINITY;
    long count = 0;
    for (long i = 0; i < k->kernel_y; i++)
        for (long j = 0; j < k->kernel_x; j++) {
            const long row = top + i * k->gap_y, column = left + j * k->gap_x;
            if (row < 0 || column < 0 || row >= (long)k->height || column >= (long)k->width) {
                /* ONNX: count_include_pad counts the padding, but not what lies beyond it when sizes
                   are rounded up. */
                count += k->counts_padding && row < k->padded_bottom && column < k->padded_right;
                continue;
            }
            const float value = in[row * (long)k->stride + column];
            largest = pn_of_two(PN_MAXIMUM, value, largest); /* a NaN stays one */
            sum += value;
            count++;
        }
    return k->largest ? largest : sum / (float)count;
}

/* The same where nothing of the window lies outside. */
static inline float pn_pooled_inside(const struct pn_pool *k, const float *in) {
    float sum = 0.0F, largest = in[0];
    for (long i = 0; i < k->kernel_y; i++) {
        const float *from = in + i * k->gap_y * (long)k->stride;
        if (k->largest)
            for (long j = 0; j < k->kernel_x; j++)
                largest = pn_of_two(PN_MAXIMUM, from[j * k->gap_x], largest);
        else
            for (long j = 0; j < k->kernel_x; j++) sum += from[j * k->gap_x];
    }
    return k->largest ? largest : sum / (float)(k->kernel_y * k->kernel_x);
}

static inline void pn_pool(const struct pn_pool *k, float *w) {
    const struct pn_planes *t = &k->out;
    const long reach_y = (k->kernel_y - 1) * k->gap_y, reach_x = (k->kernel_x - 1) * k->gap_x;
    for (size_t c = 0; c < t->channels; c++)
        for (long y = 0; y < (long)t->height; y++) {
            const float *in = w + k->in + c * k->plane;
            const long top = y * k->step_y - k->top;
            const int rows_inside = top >= 0 && top + reach_y < (long)k->height;
            float *out = w + t->at + c * t->plane + (size_t)y * t->stride;
            for (long x = 0; x < (long)t->width; x++) {
                const long left = x * k->step_x - k->left;
                if (rows_inside && left >= 0 && left + reach_x < (long)k->width)
                    out[x] = pn_pooled_inside(k, in + top * (long)k->stride + left);
                else
                    out[x] = pn_pooled(k, in, y, x);
            }
        }
    /* The buffer may have held another tensor: its border must be zero. */
    pn_clean_all(t, w);
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

static inline void pn_sparse_linear(const struct pn_linear *k, float *w, const float *data) {
    const pn_u16 *counts = pn_short(data, k->weights.counts);
    const float *values = (k->weights.widened ? w : data) + k->weights.values;
    for (size_t row = 0; row < k->rows; row++) {
        const float *in = w + k->in + row * k->in_step;
        float *out = w + k->out + row * k->out_step;
        for (size_t o = 0, i = 0; o < k->outputs; i += counts[o++]) {
            const float sum = pn_row(&k->weights, values, data, in, i, i + counts[o]);
            out[o] = pn_bounded(sum + data[k->bias + o], k->activation, k->low, k->high);
        }
    }
}
