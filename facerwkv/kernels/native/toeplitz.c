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
#define SEGMENT 128

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

/* c (H, n), its rows `stride` apart; x, y (H, R, n): y[t] = sum over u <= t of c[t-u] x[u] or, backwards, over u >= t
 * of c[u-t] x[u]. Returns 0, or 1 when there is no memory left. */
int toeplitz_product(long H, long R, long n, long stride, long backwards, const float *c, const float *x, float *y)
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
                    pad(n, 0, c + h * stride, weights);
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
