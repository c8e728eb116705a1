/* Kernels that choose and put values: by conditions, by numbers known beforehand, by size. */

/* A choice of two tensors of any strides, up to six axes. */
struct pn_choice {
    size_t sizes[PN_RANK];
    size_t c, a, b, out;
    long c_steps[PN_RANK], a_steps[PN_RANK], b_steps[PN_RANK], out_steps[PN_RANK];
};

/* `count` values, each from one offset to another. */
struct pn_places {
    size_t in, out, count, from, to;
    int adds;
};

/* Values along an axis, each a sum of `taps` others with their shares. */
struct pn_shares {
    size_t in, out, numbers, shares, taps;
    size_t sizes[PN_RANK];
    long in_steps[PN_RANK], out_steps[PN_RANK];
    int axis;
};

/* Planes looked at where a grid says, between -1 and 1. */
struct pn_sample {
    struct pn_planes out;
    size_t in, plane, stride, height, width, grid;
    long grid_row, grid_column, grid_axis;
    int nearest, border, corners;
};

static inline void pn_where(const struct pn_choice *k, float *w) {
    const size_t rows = pn_count(k->sizes, PN_RANK - 1), last = PN_RANK - 1;
    for (size_t row = 0; row < rows; row++) {
        const float *c = w + k->c + pn_offset(row, k->sizes, k->c_steps, PN_RANK - 1);
        const float *a = w + k->a + pn_offset(row, k->sizes, k->a_steps, PN_RANK - 1);
        const float *b = w + k->b + pn_offset(row, k->sizes, k->b_steps, PN_RANK - 1);
        float *out = w + k->out + pn_offset(row, k->sizes, k->out_steps, PN_RANK - 1);
        for (long i = 0; i < (long)k->sizes[last]; i++) {
            const int first = c[i * k->c_steps[last]] != 0.0F;
            out[i * k->out_steps[last]] = first ? a[i * k->a_steps[last]] : b[i * k->b_steps[last]];
        }
    }
}

static inline void pn_placed(const struct pn_places *k, float *w, const float *data) {
    const pn_u32 *from = pn_whole(data, k->from), *to = pn_whole(data, k->to);
    const float *in = w + k->in;
    float *out = w + k->out;
    /* Apart: added values may share a place, and are added in order. */
    if (k->adds)
        for (size_t i = 0; i < k->count; i++) out[to[i]] += in[from[i]];
    else
        for (size_t i = 0; i < k->count; i++) out[to[i]] = in[from[i]];
}

static inline void pn_shared(const struct pn_shares *k, float *w, const float *data) {
    const pn_u32 *numbers = pn_whole(data, k->numbers);
    const size_t count = pn_count(k->sizes, PN_RANK);
    const long step = k->in_steps[k->axis];
    size_t inner = 1;
    for (int axis = k->axis + 1; axis < PN_RANK; axis++) inner *= k->sizes[axis];
    for (size_t number = 0; number < count; number++) {
        const size_t place = number / inner % k->sizes[k->axis];
        const float *in = w + (long)k->in - (long)place * step +
                          pn_offset(number, k->sizes, k->in_steps, PN_RANK);
        const float *shares = data + k->shares + place * k->taps;
        float sum = 0.0F;
        for (size_t tap = 0; tap < k->taps; tap++)
            sum += shares[tap] * in[(long)numbers[place * k->taps + tap] * step];
        w[(long)k->out + pn_offset(number, k->sizes, k->out_steps, PN_RANK)] = sum;
    }
}

/* A position between bounds; a NaN, which no whole number can hold, becomes the lower one. */
static inline float pn_kept(float x, float low, float high) {
    return x > low ? (x < high ? x : high) : low;
}

/* A place between -1 and 1 as a position of an axis. */
static inline float pn_position(const struct pn_sample *k, float place, size_t size) {
    const float whole = (float)size - 1.0F;
    /* ONNX GridSample: with align_corners, -1 and 1 are the centres of the outer pixels, else their
       edges. */
    float x = k->corners ? (place + 1.0F) * 0.5F * whole : ((place + 1.0F) * (float)size - 1.0F) * 0.5F;
    if (k->border) x = pn_kept(x, 0.0F, whole);
    /* Far outside everything is zero: kept within what a whole number can hold. */
    x = pn_kept(x, -2.0F, (float)size + 1.0F);
    return k->nearest ? rintf(x) : x;
}

static inline float pn_seen(const struct pn_sample *k, const float *in, long y, long x) {
    if (y < 0 || x < 0 || y >= (long)k->height || x >= (long)k->width) return 0.0F;
    return in[y * (long)k->stride + x];
}

static inline void pn_sampled(const struct pn_sample *k, float *w) {
    const struct pn_planes *t = &k->out;
    for (size_t row = 0; row < t->height; row++)
        for (size_t column = 0; column < t->width; column++) {
            const float *place = w + k->grid + (long)row * k->grid_row + (long)column * k->grid_column;
            const float x = pn_position(k, place[0], k->width);
            const float y = pn_position(k, place[k->grid_axis], k->height);
            const long left = (long)floorf(x), top = (long)floorf(y);
            const float over = x - (float)left, down = y - (float)top;
            for (size_t c = 0; c < t->channels; c++) {
                const float *in = w + k->in + c * k->plane;
                const float upper = (1.0F - over) * pn_seen(k, in, top, left) +
                                    over * pn_seen(k, in, top, left + 1);
                const float lower = (1.0F - over) * pn_seen(k, in, top + 1, left) +
                                    over * pn_seen(k, in, top + 1, left + 1);
                w[t->at + c * t->plane + row * t->stride + column] = (1.0F - down) * upper + down * lower;
            }
        }
    pn_clean_all(t, w);
}
