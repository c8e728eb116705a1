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
        one.out.lead = c ? 0 : k->out.lead;
        one.bias += c, one.weights.first += c;
        PN(pn_sparse)(&one, w, data);
    }
}

#undef PN_DEEP
#undef PN_ROWS_OF_THREE
