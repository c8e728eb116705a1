/* Kernels over numbers one by one: operators that cost little, for tensors of any strides. */

enum { PN_ADD, PN_SUB, PN_MUL, PN_DIV, PN_MAXIMUM, PN_MINIMUM, PN_POW, PN_PRELU };
enum {
    PN_MOVE, PN_LEAKY, PN_BOUND, PN_ELU, PN_SIGMOID, PN_HARDSIGMOID, PN_HARDSWISH, PN_TANH, PN_EXP,
    PN_LOG, PN_SQRT, PN_NEG, PN_ABS, PN_RECIPROCAL, PN_SOFTPLUS, PN_ERF, PN_GELU, PN_GELU_TANH,
    PN_MISH, PN_SOFTSIGN, PN_SELU, PN_CELU, PN_FLOOR, PN_CEIL, PN_SIN, PN_COS, PN_SIGN, PN_SWISH, PN_FILL
};
enum { PN_SUM, PN_MEAN, PN_LARGEST, PN_LEAST, PN_PRODUCT, PN_SQUARES, PN_LENGTH, PN_SIZES };
enum { PN_SOFTMAX, PN_LOGSOFTMAX, PN_LAYERNORM, PN_ROWNORM };

static inline float pn_bounded(float x, int activation, float low, float high) {
    if (activation == PN_RELU) return x > 0.0F ? x : 0.0F;
    if (activation == PN_CLIP) return x > low ? (x < high ? x : high) : low;
    return x;
}

static inline float pn_of_two(int operation, float a, float b) {
    switch (operation) {
    case PN_ADD: return a + b;
    case PN_SUB: return a - b;
    case PN_MUL: return a * b;
    case PN_DIV: return a / b;
    case PN_MAXIMUM: return a > b ? a : b;
    case PN_MINIMUM: return a < b ? a : b;
    case PN_POW: return b == 2.0F ? a * a : powf(a, b);
    default: return a >= 0.0F ? a : a * b;
    }
}

static inline float pn_softplus(float x) { return x > 20.0F ? x : log1pf(expf(x)); }

static inline float pn_sigmoid(float x) {
    if (x >= 0.0F) return 1.0F / (1.0F + expf(-x));
    const float grown = expf(x);
    return grown / (1.0F + grown);
}

static inline float pn_of_one(int operation, float x, float alpha, float beta) {
    switch (operation) {
    case PN_LEAKY: return x >= 0.0F ? x : alpha * x;
    case PN_BOUND: return x > alpha ? (x < beta ? x : beta) : alpha;
    case PN_ELU: return x > 0.0F ? x : alpha * expm1f(x);
    case PN_SELU: return x > 0.0F ? beta * x : beta * alpha * expm1f(x);
    case PN_CELU: return x > 0.0F ? x : alpha * expm1f(x / alpha);
    case PN_SIGMOID: return pn_sigmoid(x);
    case PN_SWISH: return x * pn_sigmoid(alpha * x);
    case PN_HARDSIGMOID: return pn_bounded(alpha * x + beta, PN_CLIP, 0.0F, 1.0F);
    case PN_HARDSWISH: return x * pn_bounded(x / 6.0F + 0.5F, PN_CLIP, 0.0F, 1.0F);
    case PN_TANH: return tanhf(x);
    case PN_EXP: return expf(x);
    case PN_LOG: return logf(x);
    case PN_SQRT: return sqrtf(x);
    case PN_NEG: return -x;
    case PN_ABS: return fabsf(x);
    case PN_RECIPROCAL: return 1.0F / x;
    case PN_SOFTPLUS: return pn_softplus(x);
    case PN_MISH: return x * tanhf(pn_softplus(x));
    case PN_SOFTSIGN: return x / (1.0F + fabsf(x));
    case PN_ERF: return erff(x);
    case PN_GELU: return 0.5F * x * (1.0F + erff(x * 0.70710678F));
    case PN_GELU_TANH: return 0.5F * x * (1.0F + tanhf(0.79788456F * (x + 0.044715F * x * x * x)));
    case PN_FLOOR: return floorf(x);
    case PN_CEIL: return ceilf(x);
    case PN_SIN: return sinf(x);
    case PN_COS: return cosf(x);
    case PN_SIGN: return x > 0.0F ? 1.0F : x < 0.0F ? -1.0F : x;
    case PN_FILL: return alpha;
    default: return x;
    }
}

/* The offset of position `number` of a tensor, the last axis fastest. */
static inline long pn_offset(size_t number, const size_t *sizes, const long *steps, int axes) {
    long offset = 0;
    for (int axis = axes - 1; axis >= 0; axis--) {
        offset += (long)(number % sizes[axis]) * steps[axis];
        number /= sizes[axis];
    }
    return offset;
}

static inline size_t pn_count(const size_t *sizes, int axes) {
    size_t count = 1;
    for (int axis = 0; axis < axes; axis++) count *= sizes[axis];
    return count;
}

static inline void pn_of_pairs(const struct pn_walk *k, float *w) {
    const size_t rows = pn_count(k->sizes, PN_RANK - 1), last = PN_RANK - 1;
    for (size_t row = 0; row < rows; row++) {
        const float *a = w + k->a + pn_offset(row, k->sizes, k->a_steps, PN_RANK - 1);
        const float *b = w + k->b + pn_offset(row, k->sizes, k->b_steps, PN_RANK - 1);
        float *out = w + k->out + pn_offset(row, k->sizes, k->out_steps, PN_RANK - 1);
        for (long i = 0; i < (long)k->sizes[last]; i++)
            out[i * k->out_steps[last]] =
                pn_of_two(k->operation, a[i * k->a_steps[last]], b[i * k->b_steps[last]]);
    }
}

static inline void pn_of_each(const struct pn_walk *k, const float *from, float *to) {
    const size_t rows = pn_count(k->sizes, PN_RANK - 1), last = PN_RANK - 1;
    for (size_t row = 0; row < rows; row++) {
        const float *a = from + k->a + pn_offset(row, k->sizes, k->a_steps, PN_RANK - 1);
        float *out = to + k->out + pn_offset(row, k->sizes, k->out_steps, PN_RANK - 1);
        if (k->operation == PN_MOVE && k->a_steps[last] == 1 && k->out_steps[last] == 1)
            memcpy(out, a, k->sizes[last] * sizeof(float));
        else
            for (long i = 0; i < (long)k->sizes[last]; i++)
                out[i * k->out_steps[last]] =
                    pn_of_one(k->operation, a[i * k->a_steps[last]], k->alpha, k->beta);
    }
}

static inline void pn_taken(const struct pn_take *k, float *w, const float *data) {
    const pn_u32 *numbers = pn_whole(data, k->numbers);
    const size_t count = pn_count(k->sizes, PN_RANK);
    for (size_t number = 0; number < count; number++) {
        size_t inner = 1, place;
        for (int axis = k->axis + 1; axis < PN_RANK; axis++) inner *= k->sizes[axis];
        place = number / inner % k->sizes[k->axis];
        const long moved = ((long)numbers[place] - (long)place) * k->in_steps[k->axis];
        w[(long)k->out + pn_offset(number, k->sizes, k->out_steps, PN_RANK)] =
            w[(long)k->in + pn_offset(number, k->sizes, k->in_steps, PN_RANK) + moved];
    }
}

static inline double pn_first(int operation, const float *in) {
    if (operation == PN_PRODUCT) return 1.0;
    return operation == PN_LARGEST || operation == PN_LEAST ? (double)in[0] : 0.0;
}

static inline double pn_with(int operation, double found, double x) {
    switch (operation) {
    case PN_LARGEST: return x > found ? x : found;
    case PN_LEAST: return x < found ? x : found;
    case PN_PRODUCT: return found * x;
    case PN_SQUARES:
    case PN_LENGTH: return found + x * x;
    case PN_SIZES: return found + fabs(x);
    default: return found + x;
    }
}

static inline float pn_reduced(const struct pn_rows *k, const float *in, size_t count) {
    const size_t last = k->inner[PN_RANK - 1];
    const long step = k->in_inner[PN_RANK - 1];
    double found = pn_first(k->operation, in);
    for (size_t i = 0; i < count / last; i++) {
        const float *from = in + pn_offset(i, k->inner, k->in_inner, PN_RANK - 1);
        if (k->operation == PN_SUM || k->operation == PN_MEAN)
            for (long j = 0; j < (long)last; j++) found += (double)from[j * step];
        else
            for (long j = 0; j < (long)last; j++)
                found = pn_with(k->operation, found, (double)from[j * step]);
    }
    if (k->operation == PN_MEAN) found /= (double)count;
    return (float)(k->operation == PN_LENGTH ? sqrt(found) : found);
}

static inline void pn_reduce(const struct pn_rows *k, float *w) {
    const size_t rows = pn_count(k->outer, PN_RANK), count = pn_count(k->inner, PN_RANK);
    for (size_t row = 0; row < rows; row++)
        w[(long)k->out + pn_offset(row, k->outer, k->out_outer, PN_RANK)] =
            pn_reduced(k, w + k->in + pn_offset(row, k->outer, k->in_outer, PN_RANK), count);
}

static inline void pn_softmax(const struct pn_rows *k, const float *in, float *out, size_t count) {
    float largest = in[0];
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        const float x = in[pn_offset(i, k->inner, k->in_inner, PN_RANK)];
        largest = x > largest ? x : largest;
    }
    for (size_t i = 0; i < count; i++)
        sum += (double)expf(in[pn_offset(i, k->inner, k->in_inner, PN_RANK)] - largest);
    for (size_t i = 0; i < count; i++) {
        const float x = in[pn_offset(i, k->inner, k->in_inner, PN_RANK)] - largest;
        out[pn_offset(i, k->inner, k->out_inner, PN_RANK)] =
            k->operation == PN_SOFTMAX ? (float)((double)expf(x) / sum) : x - (float)log(sum);
    }
}

static inline void pn_normal(const struct pn_rows *k, const float *in, float *out, size_t count,
                             const float *data, size_t row) {
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (double)in[pn_offset(i, k->inner, k->in_inner, PN_RANK)];
    const double mean = sum / (double)count;
    for (size_t i = 0; i < count; i++) {
        const double x = (double)in[pn_offset(i, k->inner, k->in_inner, PN_RANK)] - mean;
        squares += x * x;
    }
    const double scale = 1.0 / sqrt(squares / (double)count + (double)k->epsilon);
    for (size_t i = 0; i < count; i++) {
        const size_t at = k->operation == PN_ROWNORM ? row : i;
        const double x = (double)in[pn_offset(i, k->inner, k->in_inner, PN_RANK)] - mean;
        out[pn_offset(i, k->inner, k->out_inner, PN_RANK)] =
            (float)(x * scale) * data[k->scale + at] + data[k->shift + at];
    }
}

static inline void pn_along(const struct pn_rows *k, float *w, const float *data) {
    const size_t rows = pn_count(k->outer, PN_RANK), count = pn_count(k->inner, PN_RANK);
    for (size_t row = 0; row < rows; row++) {
        const float *in = w + k->in + pn_offset(row, k->outer, k->in_outer, PN_RANK);
        float *out = w + k->out + pn_offset(row, k->outer, k->out_outer, PN_RANK);
        if (k->operation == PN_SOFTMAX || k->operation == PN_LOGSOFTMAX) pn_softmax(k, in, out, count);
        else pn_normal(k, in, out, count, data, row);
    }
}

static inline void pn_product(const struct pn_product *k, float *w) {
    const size_t batches = pn_count(k->batch, PN_RANK);
    for (size_t number = 0; number < batches; number++) {
        const float *a = w + k->a + pn_offset(number, k->batch, k->a_batch, PN_RANK);
        const float *b = w + k->b + pn_offset(number, k->batch, k->b_batch, PN_RANK);
        float *out = w + k->out + pn_offset(number, k->batch, k->out_batch, PN_RANK);
        for (long i = 0; i < (long)k->rows; i++)
            for (long j = 0; j < (long)k->columns; j++) {
                float sum = 0.0F;
                for (long l = 0; l < (long)k->inner; l++)
                    sum += a[i * k->a_row + l * k->a_step] * b[l * k->b_step + j * k->b_column];
                out[i * k->out_row + j * k->out_column] = sum;
            }
    }
}

#include "prunec_planes.h"
