/* Kernels over numbers one by one: operators that cost little, for tensors of any strides. */

enum {
    PN_ADD, PN_SUB, PN_MUL, PN_DIV, PN_MAXIMUM, PN_MINIMUM, PN_POW, PN_PRELU, PN_GREATER, PN_NOT_LESS,
    PN_LESS, PN_NOT_GREATER, PN_EQUAL, PN_AND, PN_OR, PN_XOR, PN_REMAINDER
};
enum {
    PN_MOVE, PN_LEAKY, PN_BOUND, PN_ELU, PN_SIGMOID, PN_HARDSIGMOID, PN_HARDSWISH, PN_TANH, PN_EXP,
    PN_LOG, PN_SQRT, PN_NEG, PN_ABS, PN_RECIPROCAL, PN_SOFTPLUS, PN_ERF, PN_GELU, PN_GELU_TANH,
    PN_MISH, PN_SOFTSIGN, PN_SELU, PN_CELU, PN_FLOOR, PN_CEIL, PN_SIN, PN_COS, PN_SIGN, PN_SWISH, PN_FILL,
    PN_NOT, PN_ROUND, PN_TAN, PN_ATAN, PN_ISNAN, PN_THRESHOLDED, PN_TRUTH
};
enum { PN_SUM, PN_MEAN, PN_LARGEST, PN_LEAST, PN_PRODUCT, PN_SQUARES, PN_LENGTH, PN_SIZES };
enum {
    PN_SOFTMAX, PN_LOGSOFTMAX, PN_LAYERNORM, PN_ROWNORM, PN_RUNNING, PN_RUNNING_BEFORE, PN_MOST,
    PN_LEAST_FIRST
};

/* A NaN stays one, because every comparison with it is false. */
static inline float pn_bounded(float x, int activation, float low, float high) {
    if (activation == PN_RELU) return x < 0.0F ? 0.0F : x;
    if (activation == PN_CLIP) return x < low ? low : x > high ? high : x;
    return x;
}

static inline int pn_compared(int operation, float a, float b) {
    switch (operation) {
    case PN_GREATER: return a > b;
    case PN_NOT_LESS: return a >= b;
    case PN_LESS: return a < b;
    case PN_NOT_GREATER: return a <= b;
    case PN_AND: return a != 0.0F && b != 0.0F;
    case PN_OR: return a != 0.0F || b != 0.0F;
    /* Whether the numbers differ, or one is NaN: PN_XOR returns it, PN_EQUAL the opposite. */
    default: return (a > b || a < b || a != a || b != b) == (operation == PN_XOR);
    }
}

static inline float pn_of_two(int operation, float a, float b) {
    switch (operation) {
    case PN_ADD: return a + b;
    case PN_SUB: return a - b;
    case PN_MUL: return a * b;
    case PN_DIV: return a / b;
    case PN_MAXIMUM: return a > b || a != a ? a : b;
    case PN_MINIMUM: return a < b || a != a ? a : b;
    /* Squares are frequent, and powf takes tens of times as long as a product. */
    case PN_POW: return b == 2.0F ? a * a : powf(a, b);
    case PN_REMAINDER: return fmodf(a, b);
    case PN_PRELU: return a >= 0.0F ? a : a * b;
    default: return pn_compared(operation, a, b) ? 1.0F : 0.0F;
    }
}

/* Above 20, log(1 + exp(x)) is x in float32, and exp(x) would overflow from 89 on: PyTorch has the
   same threshold. */
static inline float pn_softplus(float x) { return x > 20.0F ? x : log1pf(expf(x)); }

/* Two forms of 1 / (1 + exp(-x)): the exponent is never positive, so that exp does not overflow. */
static inline float pn_sigmoid(float x) {
    if (x >= 0.0F) return 1.0F / (1.0F + expf(-x));
    const float grown = expf(x);
    return grown / (1.0F + grown);
}

static inline float pn_of_one(int operation, float x, float alpha, float beta) {
    switch (operation) {
    case PN_LEAKY: return x >= 0.0F ? x : alpha * x;
    case PN_BOUND: return pn_bounded(x, PN_CLIP, alpha, beta);
    /* expm1: near 0, exp(x) - 1 would lose all its digits. */
    case PN_ELU: return x > 0.0F ? x : alpha * expm1f(x);
    case PN_SELU: return x > 0.0F ? beta * x : beta * alpha * expm1f(x);
    case PN_CELU: return x > 0.0F ? x : alpha * expm1f(x / alpha);
    case PN_SIGMOID: return pn_sigmoid(x);
    case PN_SWISH: return x * pn_sigmoid(alpha * x);
    case PN_HARDSIGMOID: return pn_bounded(alpha * x + beta, PN_CLIP, 0.0F, 1.0F);
    /* Howard et al. 2019 (arXiv:1905.02244): x * relu6(x + 3) / 6. */
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
    /* Hendrycks & Gimpel 2016 (arXiv:1606.08415): 0.70710678 = 1 / sqrt(2); in the approximation,
       0.79788456 = sqrt(2 / pi). */
    case PN_GELU: return 0.5F * x * (1.0F + erff(x * 0.70710678F));
    case PN_GELU_TANH: return 0.5F * x * (1.0F + tanhf(0.79788456F * (x + 0.044715F * x * x * x)));
    case PN_FLOOR: return floorf(x);
    case PN_CEIL: return ceilf(x);
    case PN_SIN: return sinf(x);
    case PN_COS: return cosf(x);
    case PN_SIGN: return x > 0.0F ? 1.0F : x < 0.0F ? -1.0F : x;
    case PN_FILL: return alpha;
    case PN_NOT: return x != 0.0F ? 0.0F : 1.0F;
    case PN_TRUTH: return x != 0.0F ? 1.0F : 0.0F;
    /* To the nearest, halves to the even number, as ONNX defines Round. */
    case PN_ROUND: return rintf(x);
    case PN_TAN: return tanf(x);
    case PN_ATAN: return atanf(x);
    case PN_ISNAN: return x != x ? 1.0F : 0.0F;
    case PN_THRESHOLDED: return x > alpha ? x : 0.0F;
    default: return x;
    }
}

/* The offset of position `number` of a tensor, the last axis fastest. */
static inline long pn_offset(size_t number, const size_t *sizes, const long *steps, int axes) {
    long offset = 0;
    /* Divisions are slow: none by 1, none of what is 0 already. */
    for (int axis = axes - 1; axis >= 0 && number; axis--) {
        if (sizes[axis] == 1) continue;
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

/* Offsets are computed once per row; along the last axis they grow by a step. A step of 0 repeats a
   value, which is how shapes are broadcast. */
static inline void pn_of_pairs(const struct pn_walk *k, float *w) {
    const size_t rows = pn_count(k->sizes, PN_RANK - 1), last = PN_RANK - 1;
    PN_PARALLEL_ROWS for (size_t row = 0; row < rows; row++) {
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
    PN_PARALLEL_ROWS for (size_t row = 0; row < rows; row++) {
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

/* Sums are in double: a mean over a million float32 values would otherwise lose three digits. */
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

/* The sum of values a step apart, in eight parts that the compiler may add side by side. */
static inline double pn_total(const float *in, size_t count, long step) {
    double parts[8] = {0.0}, sum = 0.0;
    size_t i = 0;
    if (step == 1)
        for (; i + 8 <= count; i += 8)
            for (size_t j = 0; j < 8; j++) parts[j] += (double)in[i + j];
    for (; i + 2 <= count; i += 2) { /* neither waits for the other */
        sum += (double)in[(long)i * step];
        parts[0] += (double)in[(long)(i + 1) * step];
    }
    if (i < count) sum += (double)in[(long)i * step];
    for (size_t j = 0; j < 8; j++) sum += parts[j];
    return sum;
}

static inline float pn_reduced(const struct pn_rows *k, const float *in, size_t count) {
    const size_t last = k->inner[PN_RANK - 1];
    const long step = k->in_inner[PN_RANK - 1];
    double found = pn_first(k->operation, in);
    for (size_t i = 0; i < count / last; i++) {
        const float *from = in + pn_offset(i, k->inner, k->in_inner, PN_RANK - 1);
        /* Apart from the others, so that the compiler need not choose an operation for every value. */
        if (k->operation == PN_SUM || k->operation == PN_MEAN)
            found += pn_total(from, last, step);
        else
            for (long j = 0; j < (long)last; j++)
                found = pn_with(k->operation, found, (double)from[j * step]);
    }
    if (k->operation == PN_MEAN) found /= (double)count;
    return (float)(k->operation == PN_LENGTH ? sqrt(found) : found);
}

static inline void pn_reduce(const struct pn_rows *k, float *w) {
    const size_t rows = pn_count(k->outer, PN_RANK), count = pn_count(k->inner, PN_RANK);
    PN_PARALLEL_ROWS for (size_t row = 0; row < rows; row++)
        w[(long)k->out + pn_offset(row, k->outer, k->out_outer, PN_RANK)] =
            pn_reduced(k, w + k->in + pn_offset(row, k->outer, k->in_outer, PN_RANK), count);
}

/* The sum of squares of what differs from a mean. */
static inline double pn_spread_of(const float *in, size_t count, long step, double mean) {
    double parts[8] = {0.0}, sum = 0.0;
    size_t i = 0;
    if (step == 1)
        for (; i + 8 <= count; i += 8)
            for (size_t j = 0; j < 8; j++) {
                const double x = (double)in[i + j] - mean;
                parts[j] += x * x;
            }
    for (; i < count; i++) {
        const double x = (double)in[(long)i * step] - mean;
        sum += x * x;
    }
    for (size_t j = 0; j < 8; j++) sum += parts[j];
    return sum;
}

/* Shifted by the largest value, so that the largest exponential is 1 and none overflows. */
static inline void pn_softmax(const struct pn_rows *k, const float *in, float *out) {
    const long count = (long)k->inner[PN_RANK - 1];
    const long from = k->in_inner[PN_RANK - 1], to = k->out_inner[PN_RANK - 1];
    float largest = in[0];
    double sum = 0.0;
    for (long i = 0; i < count; i++) largest = in[i * from] > largest ? in[i * from] : largest;
    for (long i = 0; i < count; i++) {
        const float grown = expf(in[i * from] - largest);
        sum += (double)grown;
        out[i * to] = k->operation == PN_SOFTMAX ? grown : in[i * from] - largest;
    }
    const float scale = (float)(1.0 / sum), less = (float)log(sum);
    if (k->operation == PN_SOFTMAX)
        for (long i = 0; i < count; i++) out[i * to] *= scale;
    else
        for (long i = 0; i < count; i++) out[i * to] -= less;
}

/* Layer norm and its kin. Two passes, mean first: E[x^2] - E[x]^2 would cancel where the mean is
   large. */
static inline void pn_normal(const struct pn_rows *k, const float *in, float *out, size_t count,
                             const float *data, size_t row) {
    const size_t last = k->inner[PN_RANK - 1], rows = count / last;
    const long from = k->in_inner[PN_RANK - 1], to = k->out_inner[PN_RANK - 1];
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < rows; i++)
        sum += pn_total(in + pn_offset(i, k->inner, k->in_inner, PN_RANK - 1), last, from);
    const double mean = sum / (double)count;
    for (size_t i = 0; i < rows; i++)
        squares += pn_spread_of(in + pn_offset(i, k->inner, k->in_inner, PN_RANK - 1), last, from, mean);
    const double scale = 1.0 / sqrt(squares / (double)count + (double)k->epsilon);
    const long by_channel = k->operation == PN_ROWNORM ? 0 : 1;
    for (size_t i = 0; i < rows; i++) {
        const float *x = in + pn_offset(i, k->inner, k->in_inner, PN_RANK - 1);
        float *y = out + pn_offset(i, k->inner, k->out_inner, PN_RANK - 1);
        const size_t at = by_channel ? i * last : row;
        const float *scales = data + k->scale + at, *shifts = data + k->shift + at;
        for (long j = 0; j < (long)last; j++)
            y[j * to] = (float)(((double)x[j * from] - mean) * scale) * scales[j * by_channel] +
                        shifts[j * by_channel];
    }
}

static inline void pn_running(const struct pn_rows *k, const float *in, float *out) {
    const long from = k->in_inner[PN_RANK - 1], to = k->out_inner[PN_RANK - 1];
    double sum = 0.0;
    for (long i = 0; i < (long)k->inner[PN_RANK - 1]; i++) {
        const double x = (double)in[i * from];
        out[i * to] = (float)(k->operation == PN_RUNNING ? sum + x : sum);
        sum += x;
    }
}

/* The next after the last one in order, equal ones by their place. */
static inline void pn_ordered(const struct pn_rows *k, const float *in, float *out) {
    const long count = (long)k->inner[PN_RANK - 1], from = k->in_inner[PN_RANK - 1];
    const float sign = k->operation == PN_MOST ? 1.0F : -1.0F;
    long last = -1;
    for (size_t rank = 0; rank < k->kept; rank++) {
        long best = -1;
        for (long i = 0; i < count; i++) {
            const float x = sign * in[i * from], before = last < 0 ? INFINITY : sign * in[last * from];
            /* In order of value, then of place: everything up to the last one is taken already. */
            if (x > before || (!(x < before) && i <= last)) continue;
            if (best < 0 || x > sign * in[best * from]) best = i;
        }
        out[(long)rank * k->out_inner[PN_RANK - 1]] = in[(best < 0 ? last : best) * from];
        last = best < 0 ? last : best;
    }
}

static inline void pn_along(const struct pn_rows *k, float *w, const float *data) {
    const size_t rows = pn_count(k->outer, PN_RANK), count = pn_count(k->inner, PN_RANK);
    PN_PARALLEL_ROWS for (size_t row = 0; row < rows; row++) {
        const float *in = w + k->in + pn_offset(row, k->outer, k->in_outer, PN_RANK);
        float *out = w + k->out + pn_offset(row, k->outer, k->out_outer, PN_RANK);
        if (k->operation == PN_SOFTMAX || k->operation == PN_LOGSOFTMAX) pn_softmax(k, in, out);
        else if (k->operation == PN_RUNNING || k->operation == PN_RUNNING_BEFORE) pn_running(k, in, out);
        else if (k->operation == PN_MOST || k->operation == PN_LEAST_FIRST) pn_ordered(k, in, out);
        else pn_normal(k, in, out, count, data, row);
    }
}

/* Products of two activations, as in attention. Plain loops: both operands may have any strides. */
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

#include "prunec_choices.h"
#include "prunec_planes.h"
