/* Steps of a prior on a CPU, float32: from the last code to the next, without a word to the host in between.
 *
 * Every number of a song is added up in an order that depends on the model alone: products along the input, one output
 * a lane, and a song at a time everywhere else. So a song's codes are the same bit for bit in any batch, on any number
 * of threads (each of which takes some of the songs) and however many steps one call makes.
 *
 * Weights come packed: (panels of LANES outputs, inputs, LANES), zeros where outputs end; in float16 where that holds
 * every one of them, as reading them is what a step of few songs waits for. Vectors are GCC's and clang's own, so that
 * one source serves every instruction set.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#define WIDE 8
#define LANES 16
#define LAYER_NORM_EPS 1e-5f
#define GATE 1.702f

/* Numbers of the widest vectors, which change no sum: one is added up in each lane. And how many songs by panels of a
 * product keep their sums in registers: 32 of AVX-512, else 16. */
#ifdef __AVX512F__
#define UNIT 16
#define ROWS 8
#define PANELS 3
#else
#define UNIT 8
#define ROWS 6
#define PANELS 1
#endif

#define ALWAYS static inline __attribute__((always_inline))

typedef float unit __attribute__((vector_size(4 * UNIT), aligned(4), may_alias));
typedef float vec __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));
typedef int32_t iunit __attribute__((vector_size(4 * UNIT), aligned(4), may_alias));

#if defined(__AVX512F__)
#define WIDENED(x) ((unit)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(x))))
#elif defined(__F16C__)
#define WIDENED(x) ((unit)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(x))))
#elif defined(__aarch64__)
typedef __fp16 hunit __attribute__((vector_size(2 * UNIT), aligned(2), may_alias));
#define WIDENED(x) __builtin_convertvector(*(const hunit *)(x), unit)
#endif

/* UNIT weights from the one numbered `at`, of float16 where `half` is true. */
ALWAYS unit read(const int half, const void *weight, int64_t at) {
#ifdef WIDENED
    if (half) return WIDENED((const uint16_t *)weight + at);
#endif
    return *(const unit *)((const float *)weight + at);
}

typedef struct {
    int64_t visible, capacity; /* slots that a position reads at most, and slots of the layer's cache */
    /* By position: the slot that it is kept in, the first slot that it reads, and how many from there on. */
    const int64_t *slot, *first, *count;
    const float *norm_1, *norm_1_bias;
    const void *qkv; /* this one, out, expand, contract and the head are packed */
    const float *qkv_bias;
    const void *out;
    const float *out_bias, *norm_2, *norm_2_bias;
    const void *expand;
    const float *expand_bias;
    const void *contract;
    const float *contract_bias;
    float *cache; /* (songs, 2, heads, capacity, head_dim) */
} layer_t;

typedef struct {
    int64_t songs, layers, width, heads, head_dim, inner, codes, length;
    int64_t add_after, do_sample, top_k, half; /* half: packed weights are float16, of a machine that can read it */
    double residual_scale, temperature, top_p;
    const float *embedding;    /* (codes, width) */
    const float *positions;    /* (positions, width); they and length count what stands before the codes too */
    const float *conditioning; /* (songs, length, width) or null */
    const void *head;
    const layer_t *layer;
    float *logits; /* (songs, codes), those of the last step */
} prior_t;

static inline int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

static inline vec splat(float x) { return (vec){x, x, x, x, x, x, x, x}; }

static inline unit fill(float x) { return x - (unit){0}; }

static inline unit choose(iunit mask, unit yes, unit no) { return (unit)((mask & (iunit)yes) | (~mask & (iunit)no)); }

static inline float total(vec x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

/* exp(x) within 2 units in the last place; 0 where it would be denormal; NaN stays NaN. */
static inline unit exp_of(unit x) {
    iunit tiny = x < -87.0f;
    unit y = choose(tiny, fill(-87.0f), x);
    y = choose(y > 88.0f, fill(88.0f), y);
    unit n = y * 1.44269504f + 12582912.0f;
    iunit exponent = (iunit)n;
    n = n - 12582912.0f;
    unit r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    unit p = fill(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    p = (unit)((iunit)p + (exponent << 23));
    return choose(tiny, fill(0.0f), choose(x == x, p, x));
}

/* ---- products ---- */

#define UNITS (LANES / UNIT) /* of a panel */

/* `rows` songs by `panels` panels of outputs; with `half` constants at every call, so that the sums stay in registers. */
ALWAYS void tile(const int half, const int rows, const int panels, const float *x, int64_t ldx, int64_t depth,
                 const void *weight, const float *bias, float *y, int64_t ldy) {
    unit sum[ROWS][UNITS * 4];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < UNITS * panels; v++) sum[r][v] = (unit){0};
    for (int64_t k = 0; k < depth; k++) {
        unit w[UNITS * 4];
#pragma GCC unroll 8
        for (int v = 0; v < UNITS * panels; v++)
            w[v] = read(half, weight, (v / UNITS * depth + k) * LANES + v % UNITS * UNIT);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const float a = x[r * ldx + k];
#pragma GCC unroll 8
            for (int v = 0; v < UNITS * panels; v++) sum[r][v] = sum[r][v] + a * w[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < UNITS * panels; v++) {
            unit b = bias ? *(const unit *)(bias + v * UNIT) : (unit){0};
            *(unit *)(y + r * ldy + v * UNIT) = sum[r][v] + b;
        }
}

/* All songs, in blocks as even as can be, by `panels` panels of outputs. */
ALWAYS void strip(const int half, const int panels, const float *x, int64_t ldx, int64_t songs, int64_t depth,
                  const void *weight, const float *bias, float *y, int64_t ldy) {
    const int64_t blocks = (songs + ROWS - 1) / ROWS;
    for (int64_t block = 0, r = 0, stop; block < blocks; block++, r = stop) {
        stop = songs * (block + 1) / blocks;
#define ROW_TILE(rows) \
    case rows: tile(half, rows, panels, x + r * ldx, ldx, depth, weight, bias, y + r * ldy, ldy); break
        switch (stop - r) {
            ROW_TILE(1);
            ROW_TILE(2);
            ROW_TILE(3);
            ROW_TILE(4);
            ROW_TILE(5);
            ROW_TILE(6);
#if ROWS > 6
            ROW_TILE(7);
            ROW_TILE(8);
#endif
        }
#undef ROW_TILE
    }
}

ALWAYS void strips(const int half, const float *x, int64_t ldx, int64_t songs, int64_t depth, const char *weight,
                   const float *bias, float *y, int64_t outputs) {
    const int64_t ldy = padded(outputs), panels = ldy / LANES, panel = depth * LANES * (half ? 2 : 4);
    int64_t done = 0;
#define AT(p) weight + (p) * panel, bias ? bias + (p) * LANES : 0, y + (p) * LANES, ldy
    if (songs == 1)
        for (; done + 4 <= panels; done += 4) tile(half, 1, 4, x, ldx, depth, AT(done));
    else if (UNITS == 2 && songs <= 3)
        for (; done + 2 <= panels; done += 2) strip(half, 2, x, ldx, songs, depth, AT(done));
    else
        for (; done + PANELS <= panels; done += PANELS) strip(half, PANELS, x, ldx, songs, depth, AT(done));
    for (; done < panels; done++) strip(half, 1, x, ldx, songs, depth, AT(done));
#undef AT
}

/* y = x weight + bias: (songs, depth) -> (songs, outputs), both with rows padded to whole panels. */
static void product(int64_t half, const float *x, int64_t ldx, int64_t songs, int64_t depth, const void *weight,
                    const float *bias, float *y, int64_t outputs) {
    if (half)
        strips(1, x, ldx, songs, depth, weight, bias, y, outputs);
    else
        strips(0, x, ldx, songs, depth, weight, bias, y, outputs);
}

static void layer_norm(const float *x, int64_t width, const float *weight, const float *bias, float *y) {
    int64_t k;
    vec sum = splat(0.0f), square = splat(0.0f);
    for (k = 0; k + WIDE <= width; k += WIDE) sum += *(const vec *)(x + k);
    float mean = total(sum);
    for (; k < width; k++) mean += x[k];
    mean /= (float)width;
    for (k = 0; k + WIDE <= width; k += WIDE) {
        vec d = *(const vec *)(x + k) - splat(mean);
        square += d * d;
    }
    float variance = total(square);
    for (; k < width; k++) variance += (x[k] - mean) * (x[k] - mean);
    const float scale = 1.0f / sqrtf(variance / (float)width + LAYER_NORM_EPS);
    for (k = 0; k < width; k++) y[k] = (x[k] - mean) * scale * weight[k] + bias[k];
}

/* x sigmoid(1.702 x), of a length that is whole vectors. */
static void gate(float *x, int64_t length) {
    for (int64_t k = 0; k < length; k += UNIT) {
        unit *at = (unit *)(x + k);
        *at = *at / (1.0f + exp_of(-GATE * *at));
    }
}

/* ---- attention of one position over a range of slots ---- */

static inline float dot(const float *a, const float *b, int64_t length) {
    vec sum = splat(0.0f);
    int64_t k = 0;
    for (; k + WIDE <= length; k += WIDE) sum += *(const vec *)(a + k) * *(const vec *)(b + k);
    float result = total(sum);
    for (; k < length; k++) result += a[k] * b[k];
    return result;
}

/* out = softmax(query keys / sqrt(head_dim)) values, (count, head_dim) each; `weights` has room for them. */
static void attend(const float *query, const float *keys, const float *values, int64_t count, int64_t head_dim,
                   float *weights, float *out) {
    const float scale = 1.0f / sqrtf((float)head_dim);
    float largest = -INFINITY, sum = 0.0f;
    for (int64_t j = 0; j < count; j++) {
        weights[j] = dot(query, keys + j * head_dim, head_dim) * scale;
        if (!(weights[j] <= largest)) largest = weights[j];
    }
    for (int64_t j = count; j % UNIT; j++) weights[j] = largest;
    for (int64_t j = 0; j < count; j += UNIT) {
        unit *at = (unit *)(weights + j);
        *at = exp_of(*at - largest);
    }
    for (int64_t j = 0; j < count; j++) sum += weights[j];
    const float inverse = 1.0f / sum;
    int64_t d = 0;
    for (; d + 4 * WIDE <= head_dim; d += 4 * WIDE) {
        vec part[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
        for (int64_t j = 0; j < count; j++)
            for (int v = 0; v < 4; v++)
                part[v] += splat(weights[j]) * *(const vec *)(values + j * head_dim + d + v * WIDE);
        for (int v = 0; v < 4; v++) *(vec *)(out + d + v * WIDE) = part[v] * splat(inverse);
    }
    for (; d + WIDE <= head_dim; d += WIDE) {
        vec part = splat(0.0f);
        for (int64_t j = 0; j < count; j++) part += splat(weights[j]) * *(const vec *)(values + j * head_dim + d);
        *(vec *)(out + d) = part * splat(inverse);
    }
    if (d < head_dim) {
        float part[WIDE] = {0};
        for (int64_t j = 0; j < count; j++)
            for (int64_t v = 0; v < head_dim - d; v++) part[v] += weights[j] * values[j * head_dim + d + v];
        for (int64_t v = 0; v < head_dim - d; v++) out[d + v] = part[v] * inverse;
    }
}

/* Keep the keys and values of a position and attend from it; qkv is (3, heads, head_dim). */
static void attention(const prior_t *prior, const layer_t *layer, int64_t song, int64_t position, const float *qkv,
                      float *weights, float *out) {
    const int64_t heads = prior->heads, head_dim = prior->head_dim, head = layer->capacity * head_dim;
    const int64_t slot = layer->slot[position], first = layer->first[position], count = layer->count[position];
    float *keys = layer->cache + song * 2 * heads * head, *values = keys + heads * head;
    for (int64_t h = 0; h < heads; h++, keys += head, values += head) {
        memcpy(keys + slot * head_dim, qkv + (heads + h) * head_dim, head_dim * sizeof(float));
        memcpy(values + slot * head_dim, qkv + (2 * heads + h) * head_dim, head_dim * sizeof(float));
        if (count)
            attend(qkv + h * head_dim, keys + first * head_dim, values + first * head_dim, count, head_dim, weights,
                   out + h * head_dim);
        else
            memset(out + h * head_dim, 0, head_dim * sizeof(float));
    }
}

/* ---- the draw ---- */

typedef struct {
    float value;
    int32_t code;
} ranked_t;

static int likelier_first(const void *a, const void *b) {
    const ranked_t *x = a, *y = b;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return x->code < y->code ? -1 : 1;
}

static void softmax(const float *logits, int64_t codes, float *result) {
    const int64_t whole = padded(codes);
    float largest = -INFINITY;
    for (int64_t k = 0; k < codes; k++) {
        if (!(logits[k] <= largest)) largest = logits[k];
        result[k] = logits[k];
    }
    for (int64_t k = codes; k < whole; k++) result[k] = -INFINITY;
    vec sum = splat(0.0f);
    for (int64_t k = 0; k < whole; k += UNIT) {
        unit *at = (unit *)(result + k);
        const unit x = *at - largest;
        /* Denormal numbers are kept, exp(x) = exp(x + 64 log 2) / 2^64: noise of 0 draws the first code above zero. */
        const iunit tiny = x < -87.0f;
        *at = exp_of(choose(tiny, x + 44.3614196f, x)) * choose(tiny, fill(0x1p-64f), fill(1.0f));
    }
    for (int64_t k = 0; k < whole; k += WIDE) sum += *(const vec *)(result + k);
    const float norm = total(sum);
    for (int64_t k = 0; k < codes; k++) result[k] /= norm;
}

/* Minus infinity for the codes that top-k and top-p leave out; top-k goes first. */
static void filter_top_k_top_p(const prior_t *prior, float *logits, float *probabilities, ranked_t *ranked) {
    const int64_t codes = prior->codes;
    if (prior->top_k > 0 && prior->top_k < codes) {
        for (int64_t k = 0; k < codes; k++) ranked[k] = (ranked_t){logits[k], (int32_t)k};
        qsort(ranked, codes, sizeof(ranked_t), likelier_first);
        const float last = ranked[prior->top_k - 1].value;
        for (int64_t k = 0; k < codes; k++)
            if (logits[k] < last) logits[k] = -INFINITY;
    }
    if (prior->top_p < 1.0) {
        softmax(logits, codes, probabilities);
        for (int64_t k = 0; k < codes; k++) ranked[k] = (ranked_t){probabilities[k], (int32_t)k};
        qsort(ranked, codes, sizeof(ranked_t), likelier_first);
        double sum = 0.0;
        for (int64_t k = 0; k < codes; k++) {
            sum += ranked[k].value;
            if ((float)sum - ranked[k].value >= (float)prior->top_p) logits[ranked[k].code] = -INFINITY;
        }
    }
}

/* One code of `logits`, by inverting the cumulative distribution; -1 never. */
static int64_t draw(const prior_t *prior, const float *logits, float uniform, float *scratch) {
    const int64_t codes = prior->codes;
    if (!prior->do_sample) {
        int64_t best = 0;
        for (int64_t k = 1; k < codes; k++)
            if (logits[k] > logits[best]) best = k;
        return best;
    }
    float *cooled = scratch, *cumulative = scratch + padded(codes);
    const float temperature = (float)prior->temperature;
    for (int64_t k = 0; k < codes; k++) cooled[k] = logits[k] / temperature;
    filter_top_k_top_p(prior, cooled, cumulative, (ranked_t *)(cumulative + padded(codes)));
    softmax(cooled, codes, cumulative);
    double sum = 0.0;
    float largest = 0.0f;
    for (int64_t k = 0; k < codes; k++) {
        sum += cumulative[k];
        cumulative[k] = cumulative[k] <= 0.0f ? 0.0f : (float)sum; /* a code of probability zero is never drawn */
        if (cumulative[k] > largest) largest = cumulative[k];
    }
    const float threshold = uniform * largest;
    for (int64_t k = 0; k < codes; k++)
        if (cumulative[k] > threshold) return k;
    return 0;
}

/* ---- the step ---- */

/* What a chunk of songs works with; every row is padded to whole panels. */
typedef struct {
    float *hidden, *residual, *normed, *branch, *qkv, *attended, *inner, *logits, *weights, *drawing;
} room_t;

/* Attention weights of one query: as many as any layer's cache is read from, which with lyrics may be more than a window. */
static int64_t most_weights(const prior_t *prior) {
    int64_t most = 0;
    for (int64_t l = 0; l < prior->layers; l++)
        if (prior->layer[l].visible > most) most = prior->layer[l].visible;
    return padded(most);
}

static room_t rooms(const prior_t *prior, int64_t songs, float *scratch) {
    const int64_t width = songs * padded(prior->width), size = prior->heads * prior->head_dim;
    room_t room;
    room.hidden = scratch;
    room.residual = room.hidden + width;
    room.normed = room.residual + width;
    room.branch = room.normed + width;
    room.qkv = room.branch + width;
    room.attended = room.qkv + songs * padded(3 * size);
    room.inner = room.attended + songs * padded(size);
    room.logits = room.inner + songs * padded(prior->inner);
    room.weights = room.logits + songs * padded(prior->codes);
    room.drawing = room.weights + most_weights(prior);
    return room;
}

static void embed(const prior_t *prior, int64_t position, int64_t code, float *hidden) {
    const float *embedded = prior->embedding + code * prior->width, *placed = prior->positions + position * prior->width;
    for (int64_t k = 0; k < prior->width; k++) hidden[k] = embedded[k] + placed[k];
}

static void add_conditioning(const prior_t *prior, int64_t song, int64_t position, float *hidden) {
    const float *added = prior->conditioning + (song * prior->length + position) * prior->width;
    for (int64_t k = 0; k < prior->width; k++) hidden[k] += added[k];
}

static void block(const prior_t *prior, const layer_t *layer, int64_t first, int64_t songs, int64_t position,
                  const room_t *room) {
    const int64_t width = prior->width, ld = padded(width), size = prior->heads * prior->head_dim, all = songs * ld;
    const int64_t ld_qkv = padded(3 * size), ld_attended = padded(size), ld_inner = padded(prior->inner);
    float *hidden = room->hidden, *residual = room->residual, *normed = room->normed, *branch = room->branch;
    const float scale = (float)prior->residual_scale;
    for (int64_t s = 0; s < songs; s++)
        layer_norm(hidden + s * ld, width, layer->norm_1, layer->norm_1_bias, normed + s * ld);
    product(prior->half, normed, ld, songs, width, layer->qkv, layer->qkv_bias, room->qkv, 3 * size);
    for (int64_t s = 0; s < songs; s++)
        attention(prior, layer, first + s, position, room->qkv + s * ld_qkv, room->weights,
                  room->attended + s * ld_attended);
    product(prior->half, room->attended, ld_attended, songs, size, layer->out, layer->out_bias, branch, width);
    for (int64_t k = 0; k < all; k++) residual[k] = hidden[k] + branch[k];
    for (int64_t s = 0; s < songs; s++)
        layer_norm(residual + s * ld, width, layer->norm_2, layer->norm_2_bias, normed + s * ld);
    if (scale != 1.0f) /* hidden + scale (attended + branch), else residual + branch */
        for (int64_t k = 0; k < all; k++) residual[k] = hidden[k] + scale * branch[k];
    product(prior->half, normed, ld, songs, width, layer->expand, layer->expand_bias, room->inner, prior->inner);
    gate(room->inner, songs * ld_inner);
    product(prior->half, room->inner, ld_inner, songs, prior->inner, layer->contract, layer->contract_bias, branch, width);
    for (int64_t k = 0; k < all; k++) hidden[k] = residual[k] + scale * branch[k];
}

/* Whether packed weights may be float16: whether the machine has an instruction that widens it. */
int64_t reads_half(void) {
#ifdef WIDENED
    return 1;
#else
    return 0;
#endif
}

/* Floats that `run` needs for some songs. */
int64_t scratch_floats(const prior_t *prior, int64_t songs) {
    const int64_t size = prior->heads * prior->head_dim;
    const int64_t song = 4 * padded(prior->width) + padded(3 * size) + padded(size) + padded(prior->inner);
    return songs * (song + padded(prior->codes)) + most_weights(prior) + 4 * padded(prior->codes);
}

/* `count` steps of `songs` songs from `first` on, the first of them for `position`: the code before it from `last`
 * (songs), noise from uniform (songs, stride), codes to out (songs, stride). */
void run(const prior_t *prior, int64_t first, int64_t songs, int64_t position, int64_t count, const int64_t *last,
         const float *uniform, int64_t *out, int64_t stride, float *scratch) {
    const int64_t ld = padded(prior->width), ld_logits = padded(prior->codes);
    const room_t room = rooms(prior, songs, scratch);
    memset(scratch, 0, scratch_floats(prior, songs) * sizeof(float));
    for (int64_t step = 0; step < count; step++, position++) {
        for (int64_t s = 0; s < songs; s++) {
            const int64_t song = first + s, code = step ? out[song * stride + step - 1] : last[song];
            embed(prior, position, code, room.hidden + s * ld);
            if (prior->conditioning) add_conditioning(prior, song, position, room.hidden + s * ld);
        }
        for (int64_t l = 0; l < prior->layers; l++) block(prior, prior->layer + l, first, songs, position, &room);
        if (prior->conditioning && prior->add_after)
            for (int64_t s = 0; s < songs; s++) add_conditioning(prior, first + s, position, room.hidden + s * ld);
        product(prior->half, room.hidden, ld, songs, prior->width, prior->head, 0, room.logits, prior->codes);
        for (int64_t s = 0; s < songs; s++) {
            const int64_t at = (first + s) * stride + step;
            out[at] = draw(prior, room.logits + s * ld_logits, uniform[at], room.drawing);
        }
    }
    for (int64_t s = 0; s < songs; s++)
        memcpy(prior->logits + (first + s) * prior->codes, room.logits + s * ld_logits, prior->codes * sizeof(float));
}
