/* Integer linear layers and sums of bytes over vectors of PN_WIDTH bytes, included by prunec_fours.h. */

/* Products of PN_WIDTH bytes and weights side by side, added to four sums or more of a vector. */
#ifdef PN_M /* x86-64 */
PN_INLINE PN_I PN_OF(pn_add_row)(PN_I sum, const unsigned char *in, const signed char *values) {
    return PN_OF(pn_dot)(sum, PN_BYTES_AT(in), PN_BYTES_AT(values));
}
#elif PN_WIDTH == 16 && defined(PN_DOTPROD)
PN_INLINE PN_I PN_OF(pn_add_row)(PN_I sum, const unsigned char *in, const signed char *values) {
    const uint8x16_t turned = veorq_u8(vld1q_u8(in), vdupq_n_u8(128));
    return vdotq_s32(sum, vreinterpretq_s8_u8(turned), vld1q_s8(values));
}
#elif PN_WIDTH == 16
PN_INLINE PN_I PN_OF(pn_add_row)(PN_I sum, const unsigned char *in, const signed char *values) {
    const uint8x16_t read = vld1q_u8(in);
    const int8x16_t own = vld1q_s8(values);
    const int16x8_t x[2] = {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(read))),
                            vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(read)))};
    const int16x8_t y[2] = {vmovl_s8(vget_low_s8(own)), vmovl_s8(vget_high_s8(own))};
    PN_UNROLLED for (int i = 0; i < 2; i++) {
        sum = vmlal_s16(sum, vget_low_s16(x[i]), vget_low_s16(y[i]));
        sum = vmlal_s16(sum, vget_high_s16(x[i]), vget_high_s16(y[i]));
    }
    return sum;
}
#else
PN_INLINE PN_I PN_OF(pn_add_row)(PN_I sum, const unsigned char *in, const signed char *values) {
    for (int j = 0; j < 4; j++) sum += values[j] * in[j];
    return sum;
}
#endif

/* Some outputs, whose weights are rows of whole cache lines. */
PN_INLINE void PN_OF(pn_outputs)(const struct pn_fours *k, float *w, const float *data, size_t o,
                                 const int few) {
    const size_t length = (k->taps + 63) / 64 * 64;
    const unsigned char *in = (const unsigned char *)(w + k->in);
    const signed char *values = (const signed char *)(const void *)(data + k->values) + o * length;
    const int32_t *bias = (const int32_t *)(const void *)(data + k->bias) + o;
    const int32_t *totals = (const int32_t *)(const void *)(data + k->totals) + o;
    (void)totals;
    PN_I sum[4];
    PN_UNROLLED for (int f = 0; f < few; f++) sum[f] = PN_START(0, 0);
    /* What is read behind the inputs has weights of 0. */
    for (size_t i = 0; i < k->taps; i += PN_WIDTH)
        PN_UNROLLED for (int f = 0; f < few; f++)
            sum[f] = PN_OF(pn_add_row)(sum[f], in + i, values + (size_t)f * length + i);
    PN_UNROLLED for (int f = 0; f < few; f++) {
        int32_t each[PN_WIDTH / 4], whole = bias[f] + PN_TURNED(totals[f]);
        memcpy(each, &sum[f], sizeof each);
        PN_UNROLLED for (int j = 0; j < PN_WIDTH / 4; j++) whole += each[j];
        pn_finish_one(k, w, o + (size_t)f, data[k->scales + o + (size_t)f], whole);
    }
}

static void PN_OF(pn_rows8)(const struct pn_fours *k, float *w, const float *data) {
    PN_PARALLEL for (long part = 0; part < (long)((k->group_out + 31) / 32); part++) {
        size_t o = (size_t)part * 32;
        const size_t end = k->group_out - o < 32 ? k->group_out : o + 32, last = end / 4 * 4;
        for (; o < last; o += 4) PN_OF(pn_outputs)(k, w, data, o, 4);
        for (; o < end; o++) PN_OF(pn_outputs)(k, w, data, o, 1);
    }
    pn_end_row(k, w);
}

/* Bytes of other scales, of one tensor or the sum of two. */
static void PN_OF(pn_rescaled)(const struct pn_byte_sum *k, float *w) {
    const unsigned char *a = (const unsigned char *)(w + k->a) + k->a_first;
    const unsigned char *b = (const unsigned char *)(w + k->b) + k->b_first;
    unsigned char *out = (unsigned char *)(w + k->out) + k->out_first, all[PN_WIDTH];
    memset(all, 255, sizeof all);
    memset(w + k->out, k->zero, k->lead);
    for (size_t p = 0; p < k->count; p += PN_WIDTH) {
        PN_I read[4];
        PN_R made[4];
        PN_OF(pn_widen_bytes)(read, a + p, k->a_zero, 0);
        PN_UNROLLED for (int j = 0; j < 4; j++) made[j] = PN_REAL(read[j]) * PN_ALL(k->a_scale);
        if (k->two) {
            PN_OF(pn_widen_bytes)(read, b + p, k->b_zero, 0);
            PN_UNROLLED for (int j = 0; j < 4; j++) made[j] = made[j] + PN_REAL(read[j]) * PN_ALL(k->b_scale);
        }
        PN_OF(pn_put)(out + p, made, all, k->zero, k->least, k->most, 0);
    }
}
