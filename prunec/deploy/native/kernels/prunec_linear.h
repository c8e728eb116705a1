/* Linear layers in panels of 32 outputs, included by prunec_vectors.h for each kind of processor. */

/* Rows that share the weights of a panel: as many as have their sums in registers. */
#define PN_LINES (PN_TILE * PN_LANES < 64 ? 1 : PN_TILE * PN_LANES / 32)

/* Outputs `o` to `o + count` of some rows: for each input one value an output. */
PN_INLINE void PN(pn_lines)(const struct pn_linear *k, float *w, const float *data, size_t row,
                            size_t o, size_t count, const int lines) {
    const float *in = w + k->in + row * k->in_step, *bias = data + k->bias + o;
    const float *values = data + k->values + o * k->inputs;
    PN_V sum[PN_LINES][32 / PN_LANES];
    PN_UNROLLED for (int r = 0; r < lines; r++) PN_UNROLLED for (int t = 0; t < 32 / PN_LANES; t++)
        sum[r][t] = PN_ALL(0.0F);
    for (size_t i = 0; i < k->inputs; i++, values += 32)
        PN_UNROLLED for (int r = 0; r < lines; r++) {
            const PN_V value = PN_ALL(in[(size_t)r * k->in_step + i]);
            PN_UNROLLED for (int t = 0; t < 32 / PN_LANES; t++) sum[r][t] +=
                value * PN_LOAD(values + t * PN_LANES);
        }
    for (int r = 0; r < lines; r++) {
        float *out = w + k->out + (row + (size_t)r) * k->out_step + o, made[32];
        PN_UNROLLED for (int t = 0; t < 32 / PN_LANES; t++)
            PN_STORE(made + t * PN_LANES, sum[r][t]);
        /* A panel is filled up with zeros: only `count` of its outputs have a place. */
        for (size_t j = 0; j < count; j++)
            out[j] = pn_bounded(made[j] + bias[j], k->activation, k->low, k->high);
    }
}

static void PN(pn_linear)(const struct pn_linear *k, float *w, const float *data) {
    PN_PARALLEL for (long panel = 0; panel < (long)((k->outputs + 31) / 32); panel++) {
        const size_t o = (size_t)panel * 32, count = k->outputs - o < 32 ? k->outputs - o : 32;
        size_t row = 0;
        for (; row + PN_LINES <= k->rows; row += PN_LINES)
            PN(pn_lines)(k, w, data, row, o, count, PN_LINES);
        for (; row < k->rows; row++) PN(pn_lines)(k, w, data, row, o, count, 1);
    }
}

#undef PN_LINES
