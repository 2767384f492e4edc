/* Causal products with Toeplitz tables on the CPU: float32, forward and backward. The formula stands in
 * kernels/toeplitz.py; rows longer than about a thousand tokens are cut there, and joined by Fourier transforms.
 */
#include <stdlib.h>
#include "rows.h"

#define KEY_MIN -60.0f
#define KEY_MAX 30.0f
#define WIDTH 16 /* channels of a strip: as much of a token's row as memory hands over at once */

void FORM(exp_row)(long n, float low, float high, const float *x, float *y); /* gates.c */

/* c (H, n); x, y (H, R, n): y[t] = sum over u <= t of c[t-u] x[u] or, backwards, over u >= t of c[u-t] x[u]. Returns
 * 0, or 1 when there is no memory left. */
int FORM(toeplitz_product)(long H, long R, long n, long backwards, const float *c, const float *x, float *y)
{
    int failed = 0;
    long groups = (R + ROWS - 1) / ROWS;
#pragma omp parallel
    {
        long size = n + 2 * TILE, held = -1;
        float *weights = malloc((ROWS + 1) * sizeof(float) * (size_t)size), *rows = weights + size;
        if (!weights) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for collapse(2) schedule(static)
        for (long h = 0; h < H; h++)
            for (long group = 0; group < groups; group++) {
                long first = group * ROWS, count = R - first < ROWS ? R - first : ROWS, at = (h * R + first) * n;
                if (!weights)
                    continue;
                if (held != h)
                    pad(n, 0, c + h * n, weights);
                held = h;
                for (long r = 0; r < count; r++)
                    pad(n, backwards, x + at + r * n, rows + r * size);
                product_group(count, n, backwards, weights + TILE, rows + TILE, y + at);
            }
        free(weights);
    }
    return failed;
}

/* x, g (H, R, n) → weights (H, n): [lag] is the sum over all rows and u of x[u] g[u + lag]. Returns 0, or 1 when there
 * is no memory left. */
int FORM(toeplitz_weights)(long H, long R, long n, const float *x, const float *g, float *weights)
{
    int failed = 0;
#pragma omp parallel for schedule(static)
    for (long h = 0; h < H; h++) {
        long size = n + 2 * TILE, sums = ROWS * (n + TILE);
        float *totals = calloc((size_t)(sums + 2 * WIDTH * size), sizeof(float)), *rows = totals + sums;
        float *later = rows + WIDTH * size;
        for (long first = 0; totals && first < R; first += WIDTH) {
            long count = R - first < WIDTH ? R - first : WIDTH;
            for (long r = 0; r < count; r++) {
                pad(n, 0, x + (h * R + first + r) * n, rows + r * size);
                pad(n, 0, g + (h * R + first + r) * n, later + r * size);
            }
            weights_group(count, n, rows + TILE, later + TILE, totals);
        }
        if (totals)
            by_lag(n, totals, weights + h * n);
        else {
#pragma omp atomic write
            failed = 1;
        }
        free(totals);
    }
    return failed;
}

/* Below: what comes before and after the product. k, v, total, mean and y are tokens (B, T, H, S); what the product
 * takes and gives are columns (H, B, S, P) that end in zeros. WIDTH neighbouring channels of a head go through together:
 * a strip (T, lanes) holds what lies otherwise in their columns. */
typedef struct { long T, step, P, lanes; } Strip; /* step: from a token to the next */

INLINE void to_columns(Strip n, long lanes, const float *strip, float *columns)
{
    for (long i = 0; i < lanes; i++)
        for (long t = n.T; t < n.P; t++)
            columns[i * n.P + t] = 0;
    for (long start = 0; start < n.T; start += WIDTH)
        for (long i = 0; i < lanes; i++)
            for (long t = start; t < n.T && t < start + WIDTH; t += 4)
                pick(n.T - t, lanes, strip + t * lanes + i, columns + i * n.P + t);
}

INLINE void from_columns(Strip n, long lanes, const float *columns, float *strip)
{
    for (long start = 0; start < n.T; start += WIDTH)
        for (long i = 0; i < lanes; i += 4)
            for (long t = start; t < n.T && t < start + WIDTH; t++)
                pick(lanes - i, n.P, columns + i * n.P + t, strip + t * lanes + i);
}

/* e = exp(clamp(k)), a strip. */
static void weigh(Strip n, const float *k, float *e)
{
    for (long t = 0; t < n.T; t++)
        memcpy(e + t * n.lanes, k + t * n.step, sizeof(float) * (size_t)n.lanes);
    FORM(exp_row)(n.T * n.lanes, KEY_MIN, KEY_MAX, e, e);
}

typedef const float *restrict input;
typedef float *restrict output;

INLINE void enter_strip(Strip n, long lanes, input v, input alpha, input e, output x, output total)
{
    double sums[WIDTH] = {0};
    for (long t = 0; t < n.T; t++, v += n.step, total += n.step, e += lanes, x += lanes)
        for (long i = 0; i < lanes; i++) {
            total[i] = (float)(sums[i] += e[i]);
            x[i] = alpha[t] * e[i] * v[i];
        }
}

INLINE void leave_strip(Strip n, long lanes, input sums, input total, input beta, output y, output mean)
{
    for (long t = 0; t < n.T; t++, sums += lanes, total += n.step, y += n.step, mean += n.step)
        for (long i = 0; i < lanes; i++) {
            mean[i] = sums[i] / total[i];
            y[i] = beta[t] * mean[i];
        }
}

INLINE void leave_back_strip(Strip n, long lanes, input g, input total, input mean, input beta, output g_sums,
                             output g_beta)
{
    for (long t = 0; t < n.T; t++, g_sums += lanes, g += n.step, total += n.step, mean += n.step) {
        float of_beta = 0;
        for (long i = 0; i < lanes; i++) {
            of_beta += g[i] * mean[i];
            g_sums[i] = g[i] * beta[t] / total[i];
        }
        g_beta[t] += of_beta;
    }
}

INLINE void enter_back_strip(Strip n, long lanes, input g_x, input g_sums, input mean, input k, input v, input e,
                             input alpha, output g_k, output g_v, output g_alpha)
{
    double later[WIDTH] = {0}; /* minus the gradient of the sum of e */
    for (long t = n.T - 1; t >= 0; t--) {
        float of_alpha = 0;
        long at = t * n.step, in = t * lanes;
        for (long i = 0; i < lanes; i++) {
            float open = g_x[in + i] * alpha[t], key = k[at + i], value = v[at + i];
            later[i] += (double)g_sums[in + i] * mean[at + i];
            of_alpha += g_x[in + i] * e[in + i] * value;
            g_v[at + i] = open * e[in + i];
            float of_key = e[in + i] * (float)((double)open * value - later[i]); /* two that nearly cancel */
            g_k[at + i] = key < KEY_MIN || key > KEY_MAX ? 0.0f : of_key;
        }
        g_alpha[t] += of_alpha;
    }
}

/* The strip of head h from channel s on in picture b: where it starts among tokens, and among columns. */
INLINE Strip strip_at(long T, long H, long S, long P, long s)
{
    return (Strip){T, H * S, P, S - s < WIDTH ? S - s : WIDTH};
}

/* Run a statement in which `lanes` is a constant for the usual widths, so that its loops are made for them. */
#define WITH_LANES(strip, ...)                                                                                        \
    do {                                                                                                              \
        if ((strip).lanes == WIDTH) {                                                                                 \
            enum { lanes = WIDTH };                                                                                   \
            __VA_ARGS__;                                                                                              \
        } else if ((strip).lanes == 1) {                                                                              \
            enum { lanes = 1 };                                                                                       \
            __VA_ARGS__;                                                                                              \
        } else {                                                                                                      \
            long lanes = (strip).lanes;                                                                               \
            __VA_ARGS__;                                                                                              \
        }                                                                                                             \
    } while (0)

#define TOKEN ((b * T * H + h) * S + s)
#define COLUMN (((h * B + b) * S + s) * P)

/* k, v tokens, alpha (H, T) → x = alpha e v, columns, and total, the sums of e so far, tokens. Returns 0, or 1 when
 * there is no memory left. */
int FORM(toeplitz_enter)(long B, long T, long H, long S, long P, const float *k, const float *v, const float *alpha,
                         float *x, float *total)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *e = malloc(2 * sizeof(float) * WIDTH * (size_t)T), *strip = e + WIDTH * T;
            for (long s = 0; e && s < S; s += WIDTH) {
                Strip n = strip_at(T, H, S, P, s);
                weigh(n, k + TOKEN, e);
                WITH_LANES(n, enter_strip(n, lanes, v + TOKEN, alpha + h * T, e, strip, total + TOKEN));
                WITH_LANES(n, to_columns(n, lanes, strip, x + COLUMN));
            }
            if (!e) {
#pragma omp atomic write
                failed = 1;
            }
            free(e);
        }
    return failed;
}

/* sums, columns, total, tokens, beta (H, T) → mean = sums / total and y = beta mean, tokens. Returns 0, or 1 when there
 * is no memory left. */
int FORM(toeplitz_leave)(long B, long T, long H, long S, long P, const float *sums, const float *total,
                         const float *beta, float *y, float *mean)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *strip = malloc(sizeof(float) * WIDTH * (size_t)T);
            for (long s = 0; strip && s < S; s += WIDTH) {
                Strip n = strip_at(T, H, S, P, s);
                WITH_LANES(n, from_columns(n, lanes, sums + COLUMN, strip));
                WITH_LANES(n, leave_strip(n, lanes, strip, total + TOKEN, beta + h * T, y + TOKEN, mean + TOKEN));
            }
            if (!strip) {
#pragma omp atomic write
                failed = 1;
            }
            free(strip);
        }
    return failed;
}

/* g, the gradient of y, total and mean, tokens → g_sums, columns, and g_beta (B, H, T), zeros at first. Returns 0, or 1
 * when there is no memory left. */
int FORM(toeplitz_leave_back)(long B, long T, long H, long S, long P, const float *g, const float *total,
                              const float *mean, const float *beta, float *g_sums, float *g_beta)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *strip = malloc(sizeof(float) * WIDTH * (size_t)T), *of_beta = g_beta + (b * H + h) * T;
            const float *row = beta + h * T;
            for (long s = 0; strip && s < S; s += WIDTH) {
                Strip n = strip_at(T, H, S, P, s);
                WITH_LANES(n, leave_back_strip(n, lanes, g + TOKEN, total + TOKEN, mean + TOKEN, row, strip, of_beta));
                WITH_LANES(n, to_columns(n, lanes, strip, g_sums + COLUMN));
            }
            if (!strip) {
#pragma omp atomic write
                failed = 1;
            }
            free(strip);
        }
    return failed;
}

/* g_x and g_sums, columns, mean, k, v, tokens, alpha (H, T) → g_k, g_v, tokens, and g_alpha (B, H, T), zeros at first.
 * Returns 0, or 1 when there is no memory left. */
int FORM(toeplitz_enter_back)(long B, long T, long H, long S, long P, const float *g_x, const float *g_sums,
                              const float *mean, const float *k, const float *v, const float *alpha, float *g_k,
                              float *g_v, float *g_alpha)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *e = malloc(3 * sizeof(float) * WIDTH * (size_t)T);
            float *of_x = e + WIDTH * T, *of_sums = of_x + WIDTH * T;
            float *of_alpha = g_alpha + (b * H + h) * T;
            const float *row = alpha + h * T;
            for (long s = 0; e && s < S; s += WIDTH) {
                Strip n = strip_at(T, H, S, P, s);
                long at = TOKEN;
                weigh(n, k + at, e);
                WITH_LANES(n, from_columns(n, lanes, g_x + COLUMN, of_x));
                WITH_LANES(n, from_columns(n, lanes, g_sums + COLUMN, of_sums));
                WITH_LANES(n, enter_back_strip(n, lanes, of_x, of_sums, mean + at, k + at, v + at, e, row, g_k + at,
                                               g_v + at, of_alpha));
            }
            if (!e) {
#pragma omp atomic write
                failed = 1;
            }
            free(e);
        }
    return failed;
}

/* Below: all of it at once, for sequences without transforms: a strip passes from tokens to tokens while it is in the
 * cache. Its columns lie in padded rows. */
INLINE void strip_product(Strip n, long lanes, long reversed, const float *c, const float *strip, float *rows,
                          float *columns)
{
    long size = n.T + 2 * TILE;
    to_columns(n, lanes, strip, columns);
    for (long i = 0; i < lanes; i++)
        pad(n.T, reversed, columns + i * n.T, rows + i * size);
    for (long i = 0; i < lanes; i += ROWS) {
        long count = lanes - i < ROWS ? lanes - i : ROWS;
        product_group(count, n.T, reversed, c + TILE, rows + i * size + TILE, columns + i * n.T);
    }
}

/* c, alpha, beta (H, T), k, v tokens → y, total and mean, tokens. Returns 0, or 1 when there is no memory left. */
int FORM(toeplitz_forward)(long B, long T, long H, long S, const float *c, const float *alpha, const float *beta,
                           const float *k, const float *v, float *y, float *total, float *mean)
{
    int failed = 0;
#pragma omp parallel for collapse(3) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++)
            for (long s = 0; s < S; s += WIDTH) {
                long size = T + 2 * TILE, at = TOKEN;
                Strip n = strip_at(T, H, S, T, s);
                float *weights = malloc(sizeof(float) * (size_t)(size * (1 + n.lanes) + 2 * n.lanes * T));
                float *rows = weights + size, *strip = rows + n.lanes * size, *columns = strip + n.lanes * T;
                if (!weights) {
#pragma omp atomic write
                    failed = 1;
                    continue;
                }
                pad(T, 0, c + h * T, weights);
                weigh(n, k + at, columns);
                WITH_LANES(n, enter_strip(n, lanes, v + at, alpha + h * T, columns, strip, total + at));
                WITH_LANES(n, strip_product(n, lanes, 0, weights, strip, rows, columns));
                WITH_LANES(n, from_columns(n, lanes, columns, strip));
                WITH_LANES(n, leave_strip(n, lanes, strip, total + at, beta + h * T, y + at, mean + at));
                free(weights);
            }
    return failed;
}

/* The same backwards for one strip: `weights` is padded c, `room` holds 2 (T + 2 TILE) + 3 T numbers a lane, of_c is
 * as weights_group's totals. */
INLINE void backward_strip(Strip n, long lanes, const float *weights, const float *alpha, const float *beta,
                           const float *k, const float *v, const float *total, const float *mean, const float *g,
                           float *g_k, float *g_v, float *g_alpha, float *g_beta, float *of_c, float *room)
{
    long size = n.T + 2 * TILE;
    float *x = room, *later = x + lanes * size, *e = later + lanes * size, *sums = e + lanes * n.T;
    float *columns = sums + lanes * n.T;
    leave_back_strip(n, lanes, g, total, mean, beta, sums, g_beta);
    weigh(n, k, e);
    for (long t = 0; t < n.T; t++)
        for (long i = 0; i < lanes; i++)
            x[t * lanes + i] = alpha[t] * e[t * lanes + i] * v[t * n.step + i];
    to_columns(n, lanes, x, columns);
    for (long i = 0; i < lanes; i++)
        pad(n.T, 0, columns + i * n.T, x + i * size);
    to_columns(n, lanes, sums, columns);
    for (long i = 0; i < lanes; i++)
        pad(n.T, 0, columns + i * n.T, later + i * size);
    weights_group(lanes, n.T, x + TILE, later + TILE, of_c);
    strip_product(n, lanes, 1, weights, sums, later, columns);
    from_columns(n, lanes, columns, x);
    enter_back_strip(n, lanes, x, sums, mean, k, v, e, alpha, g_k, g_v, g_alpha);
}

/* g, the gradient of y, tokens → g_k, g_v, tokens; g_c, g_alpha, g_beta (B, H, T), zeros at first. Returns 0, or 1 when
 * there is no memory left. */
int FORM(toeplitz_backward)(long B, long T, long H, long S, const float *c, const float *alpha, const float *beta,
                            const float *k, const float *v, const float *total, const float *mean, const float *g,
                            float *g_c, float *g_alpha, float *g_beta, float *g_k, float *g_v)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            long size = T + 2 * TILE, row = (b * H + h) * T;
            float *weights = malloc(sizeof(float) * (size_t)(size + WIDTH * (2 * size + 3 * T)));
            float *of_c = calloc((size_t)(ROWS * (T + TILE)), sizeof(float));
            if (weights && of_c) {
                pad(T, 0, c + h * T, weights);
                for (long s = 0; s < S; s += WIDTH) {
                    Strip n = strip_at(T, H, S, T, s);
                    long at = TOKEN;
                    WITH_LANES(n, backward_strip(n, lanes, weights, alpha + h * T, beta + h * T, k + at, v + at,
                                                 total + at, mean + at, g + at, g_k + at, g_v + at, g_alpha + row,
                                                 g_beta + row, of_c, weights + size));
                }
                by_lag(T, of_c, g_c + row);
            } else {
#pragma omp atomic write
                failed = 1;
            }
            free(weights);
            free(of_c);
        }
    return failed;
}
