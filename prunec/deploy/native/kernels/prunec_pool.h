/* Pooling, included by prunec_vectors.h for each kind of processor: first over the rows of a window, for all
 * columns at once, then along that line. */

/* The larger of two; a NaN of either, as in torch. */
PN_INLINE PN_V PN(pn_most)(PN_V v, PN_V x) {
#if PN_LANES == 1
    return v < x || x != x ? x : v;
#else
    const PN(pn_mask) taken = (v < x) | (x != x);
    return (PN_V)(((PN(pn_mask))x & taken) | ((PN(pn_mask))v & ~taken));
#endif
}

/* A line and another one together, whole vectors of them; the first one is taken as it is. */
static void PN(pn_joined)(int largest, int first, float *to, const float *from, size_t count) {
    if (first)
        for (size_t i = 0; i < count; i += PN_LANES) PN_STORE(to + i, PN_LOAD(from + i));
    else if (largest)
        for (size_t i = 0; i < count; i += PN_LANES)
            PN_STORE(to + i, PN(pn_most)(PN_LOAD(to + i), PN_LOAD(from + i)));
    else
        for (size_t i = 0; i < count; i += PN_LANES) PN_STORE(to + i, PN_LOAD(to + i) + PN_LOAD(from + i));
}

/* A row of outputs. `line` holds the input's columns and what lies beside them. */
static void PN(pn_pooled)(const struct pn_pool *k, const float *in, float *line, float *out, long y) {
    const size_t room = k->scratch_size / 2, count = (k->out.width - 1) * (size_t)k->step_x + 1;
    float *made = line + room, *row = line + k->left;
    const float beside = k->largest ? -INFINITY : 0.0F;
    int first = 1;
    for (long i = 0; i < k->kernel_y; i++) {
        const long number = y * k->step_y - k->top + i * k->gap_y;
        if (number < 0 || number >= (long)k->height) continue;
        PN(pn_joined)(k->largest, first, row, in + (size_t)number * k->stride, k->width);
        first = 0;
    }
    pn_fill(line, (size_t)k->left, beside);
    if (first) pn_fill(row, k->width, beside);
    /* Vectors have left there what they read behind the row. */
    pn_fill(row + k->width, room - (size_t)k->left - k->width, beside);
    for (long j = 0; j < k->kernel_x; j++)
        PN(pn_joined)(k->largest, !j, made, line + j * k->gap_x, count);
    pn_every(out, made, (long)k->out.width, k->step_x);
    if (k->largest) return;
    const long rows = pn_counted(y * k->step_y - k->top, k->kernel_y, k->gap_y, k->height,
                                 k->counts_padding, k->padded_bottom);
    for (long x = 0; x < (long)k->out.width; x++)
        out[x] /= (float)(rows * pn_counted(x * k->step_x - k->left, k->kernel_x, k->gap_x, k->width,
                                            k->counts_padding, k->padded_right));
}

static void PN(pn_pool)(const struct pn_pool *k, float *w) {
    const struct pn_planes *t = &k->out;
    memset(w + t->at - t->lead, 0, t->lead * sizeof(float));
    PN_PARALLEL for (long channel = 0; channel < (long)t->channels; channel++) {
        const size_t c = (size_t)channel;
        float *line = pn_scratch(w, k->scratch), *out = w + t->at + c * t->plane;
        for (size_t y = 0; y < t->height; y++)
            PN(pn_pooled)(k, w + k->in + c * k->plane, line, out + y * t->stride, (long)y);
        pn_clean(t, out, 0, 0, t->height * t->stride);
    }
}
