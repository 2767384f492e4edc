/* Causal products with Toeplitz tables on the CPU: float32, forward and backward. The formula stands in
 * kernels/toeplitz.py; rows longer than about a thousand tokens are cut there, and joined by Fourier transforms.
 *
 * A tile of TILE sums stays in registers while a row passes by. Sums that lie LANES apart need the same vector of
 * weights LANES steps apart: each vector that is loaded serves all of the tile's VECTORS.
 */
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define VECTORS 8
#define TILE (LANES * VECTORS)
#define SEGMENT 16
#define KEY_MIN -60.0f
#define KEY_MAX 30.0f

void exp_row(long n, float low, float high, const float *x, float *y); /* gates.c */

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* totals[j] += sum over p < n of x[step p - step LANES j] v[p .. p + LANES - 1]; step is 1 or -1. Each SEGMENT is summed
 * by itself, since one long sum would lose digits. */
INLINE void accumulate(int step, long n, const float *x, const float *v, Lanes *totals)
{
    for (long p = 0; p < n;) {
        Lanes sums[VECTORS] = {0};
        for (long stop = p + SEGMENT < n ? p + SEGMENT : n; p < stop; p++, x += step) {
            Lanes vector = *(const Lanes *)(v + p);
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; j++)
                sums[j] += x[-step * LANES * j] * vector;
        }
        for (int j = 0; j < VECTORS; j++)
            totals[j] += sums[j];
    }
}

/* A copy of n numbers, in reverse if asked, with TILE zeros before and after. */
static void pad(long n, long reversed, const float *from, float *to)
{
    memset(to, 0, sizeof(float) * TILE);
    memset(to + TILE + n, 0, sizeof(float) * TILE);
    if (reversed)
        for (long i = 0; i < n; i++)
            to[TILE + i] = from[n - 1 - i];
    else
        memcpy(to + TILE, from, sizeof(float) * (size_t)n);
}

/* y[t] = sum over u <= t of c[t-u] x[u] for padded c and x; in reverse, y[n-1-t]. */
static void product_row(long n, long reversed, const float *c, const float *x, float *y)
{
    for (long t = 0; t < n; t += TILE) {
        Lanes sums[VECTORS] = {0};
        /* from the vector of lags 1 - LANES to 0, which only a tile's diagonal needs, to the lags of token 0 */
        accumulate(-1, t + TILE, x + t + LANES - 1, c + 1 - LANES, sums);
        const float *found = (const float *)sums;
        long count = n - t < TILE ? n - t : TILE;
        if (reversed)
            for (long i = 0; i < count; i++)
                y[n - 1 - t - i] = found[i];
        else
            memcpy(y + t, found, sizeof(float) * (size_t)count);
    }
}

/* c (H, n); x, y (H, R, n): y[t] = sum over u <= t of c[t-u] x[u] or, backwards, over u >= t
 * of c[u-t] x[u]. Returns 0, or 1 when there is no memory left. */
int toeplitz_product(long H, long R, long n, long backwards, const float *c, const float *x, float *y)
{
    int failed = 0;
#pragma omp parallel
    {
        long size = n + 2 * TILE, held = -1;
        float *weights = malloc(2 * sizeof(float) * (size_t)size);
        if (!weights) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for collapse(2) schedule(static)
        for (long h = 0; h < H; h++)
            for (long r = 0; r < R; r++) {
                if (!weights)
                    continue;
                float *row = weights + size;
                if (held != h)
                    pad(n, 0, c + h * n, weights);
                held = h;
                pad(n, backwards, x + (h * R + r) * n, row);
                product_row(n, backwards, weights + TILE, row + TILE, y + (h * R + r) * n);
            }
        free(weights);
    }
    return failed;
}

/* x, g (H, R, n) → weights (H, n): [lag] is the sum over all rows and u of x[u] g[u + lag]. Returns 0, or 1 when there
 * is no memory left. */
int toeplitz_weights(long H, long R, long n, const float *x, const float *g, float *weights)
{
    int failed = 0;
#pragma omp parallel for schedule(static)
    for (long h = 0; h < H; h++) {
        long size = n + 2 * TILE, tiles = (n + TILE - 1) / TILE;
        float *rows = malloc(sizeof(float) * (size_t)(2 * size));
        Lanes *totals = calloc((size_t)(tiles * VECTORS), sizeof(Lanes));
        for (long r = 0; rows && totals && r < R; r++) {
            pad(n, 0, x + (h * R + r) * n, rows);
            pad(n, 0, g + (h * R + r) * n, rows + size);
            for (long tile = 0, lag = 0; tile < tiles; tile++, lag += TILE) {
                const float *later = rows + size + TILE + lag;
                accumulate(1, n - lag + LANES - 1, rows + TILE + 1 - LANES, later + 1 - LANES, totals + tile * VECTORS);
            }
        }
        if (rows && totals)
            memcpy(weights + h * n, totals, sizeof(float) * (size_t)n);
        else {
#pragma omp atomic write
            failed = 1;
        }
        free(rows);
        free(totals);
    }
    return failed;
}

/* Below: what comes before and after the product. Tokens are (B, T, H, S), columns (H, B, S, T) with one column after
 * the other; padded columns are P long and end in zeros. Columns of one head and picture go through memory together,
 * LANES at once. */
static void to_columns(long T, long step, long lanes, const float *tokens, float *columns)
{
    for (long t = 0; t < T; t++)
        for (long i = 0; i < lanes; i++)
            columns[i * T + t] = tokens[t * step + i];
}

static void to_tokens(long T, long step, long lanes, const float *columns, float *tokens)
{
    for (long t = 0; t < T; t++)
        for (long i = 0; i < lanes; i++)
            tokens[t * step + i] = columns[i * T + t];
}

INLINE long lanes_from(long s, long S)
{
    return S - s < LANES ? S - s : LANES;
}

/* k, v tokens, alpha (H, T) → x = alpha e v, padded columns, and total, the sums of e so far, columns. Returns 0, or 1
 * when there is no memory left. */
int toeplitz_enter(long B, long T, long H, long S, long P, const float *k, const float *v, const float *alpha, float *x,
                   float *total)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *keys = malloc(2 * sizeof(float) * LANES * (size_t)T), *values = keys + LANES * T;
            for (long s = 0; keys && s < S; s += LANES) {
                long lanes = lanes_from(s, S), token = (b * T * H + h) * S + s, column = (h * B + b) * S + s;
                to_columns(T, H * S, lanes, k + token, keys);
                to_columns(T, H * S, lanes, v + token, values);
                exp_row(lanes * T, KEY_MIN, KEY_MAX, keys, keys);
                for (long i = 0; i < lanes; i++) {
                    const float *e = keys + i * T, *value = values + i * T;
                    float *out = x + (column + i) * P, *sums = total + (column + i) * T;
                    double sum = 0;
                    for (long t = 0; t < T; t++)
                        out[t] = alpha[h * T + t] * e[t] * value[t];
                    memset(out + T, 0, sizeof(float) * (size_t)(P - T));
                    for (long t = 0; t < T; t++)
                        sums[t] = (float)(sum += e[t]);
                }
            }
            if (!keys) {
#pragma omp atomic write
                failed = 1;
            }
            free(keys);
        }
    return failed;
}

/* sums, padded columns, total, columns, beta (H, T) → mean = sums / total, columns, and y = beta mean, tokens. Returns
 * 0, or 1 when there is no memory left. */
int toeplitz_leave(long B, long T, long H, long S, long P, const float *sums, const float *total, const float *beta,
                   float *y, float *mean)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *out = malloc(sizeof(float) * LANES * (size_t)T);
            for (long s = 0; out && s < S; s += LANES) {
                long lanes = lanes_from(s, S), column = (h * B + b) * S + s;
                for (long i = 0; i < lanes; i++)
                    for (long t = 0, at = (column + i) * T, from = (column + i) * P; t < T; t++) {
                        mean[at + t] = sums[from + t] / total[at + t];
                        out[i * T + t] = beta[h * T + t] * mean[at + t];
                    }
                to_tokens(T, H * S, lanes, out, y + (b * T * H + h) * S + s);
            }
            if (!out) {
#pragma omp atomic write
                failed = 1;
            }
            free(out);
        }
    return failed;
}

/* g, the gradient of y, tokens → g_sums, padded columns, and g_beta (B, H, T). Returns 0, or 1 when there is no memory
 * left. */
int toeplitz_leave_back(long B, long T, long H, long S, long P, const float *g, const float *total, const float *mean,
                        const float *beta, float *g_sums, float *g_beta)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *in = malloc(sizeof(float) * LANES * (size_t)T), *of_beta = g_beta + (b * H + h) * T;
            memset(of_beta, 0, sizeof(float) * (size_t)T);
            for (long s = 0; in && s < S; s += LANES) {
                long lanes = lanes_from(s, S), column = (h * B + b) * S + s;
                to_columns(T, H * S, lanes, g + (b * T * H + h) * S + s, in);
                for (long i = 0; i < lanes; i++) {
                    float *out = g_sums + (column + i) * P;
                    for (long t = 0, at = (column + i) * T; t < T; t++) {
                        of_beta[t] += in[i * T + t] * mean[at + t];
                        out[t] = in[i * T + t] * beta[h * T + t] / total[at + t];
                    }
                    memset(out + T, 0, sizeof(float) * (size_t)(P - T));
                }
            }
            if (!in) {
#pragma omp atomic write
                failed = 1;
            }
            free(in);
        }
    return failed;
}

/* One column: g_x and the gradient of the sums → those of key and value, written over e and value; that of alpha is
 * added to. */
static void column_back(long T, const float *g_x, const float *g_sums, const float *mean, const float *alpha,
                        const float *key, float *e, float *value, float *g_alpha)
{
    double later = 0; /* minus the gradient of the sum of e */
    for (long t = T - 1; t >= 0; t--) {
        float of_e = g_x[t] * e[t], of_value = of_e * alpha[t];
        g_alpha[t] += of_e * value[t];
        later += (double)g_sums[t] * mean[t];
        float of_key = e[t] * (float)((double)(g_x[t] * alpha[t]) * value[t] - later); /* two that nearly cancel */
        e[t] = key[t] < KEY_MIN || key[t] > KEY_MAX ? 0.0f : of_key;
        value[t] = of_value;
    }
}

/* g_x and g_sums, padded columns, mean, columns, k, v, tokens, alpha (H, T) → g_k, g_v, tokens, and g_alpha (B, H, T).
 * Returns 0, or 1 when there is no memory left. */
int toeplitz_enter_back(long B, long T, long H, long S, long P, const float *g_x, const float *g_sums,
                        const float *mean, const float *k, const float *v, const float *alpha, float *g_k, float *g_v,
                        float *g_alpha)
{
    int failed = 0;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long h = 0; h < H; h++) {
            float *keys = malloc(3 * sizeof(float) * LANES * (size_t)T), *values = keys + LANES * T;
            float *e = values + LANES * T, *of_alpha = g_alpha + (b * H + h) * T;
            memset(of_alpha, 0, sizeof(float) * (size_t)T);
            for (long s = 0; keys && s < S; s += LANES) {
                long lanes = lanes_from(s, S), token = (b * T * H + h) * S + s, column = (h * B + b) * S + s;
                to_columns(T, H * S, lanes, k + token, keys);
                to_columns(T, H * S, lanes, v + token, values);
                exp_row(lanes * T, KEY_MIN, KEY_MAX, keys, e);
                for (long i = 0; i < lanes; i++)
                    column_back(T, g_x + (column + i) * P, g_sums + (column + i) * P, mean + (column + i) * T,
                                alpha + h * T, keys + i * T, e + i * T, values + i * T, of_alpha);
                to_tokens(T, H * S, lanes, e, g_k + token);
                to_tokens(T, H * S, lanes, values, g_v + token);
            }
            if (!keys) {
#pragma omp atomic write
                failed = 1;
            }
            free(keys);
        }
    return failed;
}
