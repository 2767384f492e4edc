/* Products of padded rows with the weights of a causal Toeplitz table, and sums of their products by lag.
 *
 * A tile of TILE sums stays in registers while a row passes by. Sums that lie SPAN apart need the same weights SPAN
 * steps apart: each span of weights that is loaded serves all of the tile's SPANS.
 */
#ifndef FACERWKV_ROWS_H
#define FACERWKV_ROWS_H

#include <string.h>
#include "lanes.h"

#define SPAN (2 * LANES)
#define SPANS 4
#define TILE (SPAN * SPANS)
#define SEGMENT 16
#define WIDE 2
#if defined(__AVX512F__) || defined(__aarch64__) /* as many sums as registers hold */
#define ROWS 8
#else
#define ROWS 4
#endif

/* totals[SPAN j + i] += sum over p < n of x[step p - step SPAN j] v[p + i] for i < SPAN; step is 1 or -1. Each SEGMENT is
 * summed by itself, since one long sum would lose digits. */
INLINE void accumulate(int step, long n, const float *x, const float *v, memory *totals)
{
    for (long p = 0; p < n;) {
        memory sums[2 * SPANS] = {0};
        for (long stop = p + SEGMENT < n ? p + SEGMENT : n; p < stop; p++, x += step) {
            memory low = *(const memory *)(v + p), high = *(const memory *)(v + p + LANES);
#pragma GCC unroll 4
            for (int j = 0; j < SPANS; j++) {
                float one = x[-step * SPAN * j];
                sums[2 * j] += one * low;
                sums[2 * j + 1] += one * high;
            }
        }
        for (int j = 0; j < 2 * SPANS; j++)
            totals[j] += sums[j];
    }
}

/* The same for WIDE vectors of sums of each of ROWS rows of x, `row` apart, that share c: totals[r][j] += sum over u < n
 * of x[r][u] c[LANES j - u ..]. */
INLINE void accumulate_rows(long n, const float *x, long row, const float *c, memory *totals)
{
    for (long u = 0; u < n;) {
        memory sums[ROWS * WIDE] = {0};
        for (long stop = u + SEGMENT < n ? u + SEGMENT : n; u < stop; u++)
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
                for (int j = 0; j < WIDE; j++)
                    sums[r * WIDE + j] += x[r * row + u] * ((const memory *)(c - u))[j];
        for (int j = 0; j < ROWS * WIDE; j++)
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
    else if (n) /* memcpy takes no null pointer, even for nothing */
        memcpy(to + TILE, from, sizeof(float) * (size_t)n);
}

static void store(long n, long t, long count, long reversed, const float *sums, float *y)
{
    count = n - t < count ? n - t : count;
    for (long i = 0; reversed && i < count; i++)
        y[n - 1 - t - i] = sums[i];
    if (!reversed)
        memcpy(y + t, sums, sizeof(float) * (size_t)count);
}

/* y[t] = sum over u <= t of c[t-u] x[u] for padded c and x; in reverse, y[n-1-t]. */
static void product_row(long n, long reversed, const float *c, const float *x, float *y)
{
    for (long t = 0; t < n; t += TILE) {
        memory sums[2 * SPANS] = {0};
        /* from the span of lags 1 - SPAN to 0, which only a tile's diagonal needs, to the lags of token 0 */
        accumulate(-1, t + TILE, x + t + SPAN - 1, c + 1 - SPAN, sums);
        store(n, t, TILE, reversed, (const float *)sums, y);
    }
}

/* The same for ROWS rows of x, `row` apart, and of y. */
static void product_rows(long n, long reversed, const float *c, const float *x, long row, float *y)
{
    for (long t = 0; t < n; t += WIDE * LANES) {
        memory sums[ROWS * WIDE] = {0};
        accumulate_rows(t + WIDE * LANES < n ? t + WIDE * LANES : n, x, row, c + t, sums);
        for (long r = 0; r < ROWS; r++)
            store(n, t, WIDE * LANES, reversed, (const float *)(sums + r * WIDE), y + r * n);
    }
}

/* The same for up to ROWS rows of x, padded one by one. */
static void product_group(long count, long n, long reversed, const float *c, const float *x, float *y)
{
    long size = n + 2 * TILE;
    unsigned before = flush_subnormals();
    if (count == ROWS)
        product_rows(n, reversed, c, x, size, y);
    else
        for (long r = 0; r < count; r++)
            product_row(n, reversed, c, x + r * size, y + r * n);
    restore(before);
}

/* totals[lag] += sum over u of x[u] g[u + lag] for padded x and g; whole tiles of totals. */
static void weights_row(long n, const float *x, const float *g, float *totals)
{
    for (long lag = 0; lag < n; lag += TILE)
        accumulate(1, n - lag + SPAN - 1, x + 1 - SPAN, g + lag + 1 - SPAN, (memory *)(totals + lag));
}

/* The same for `count` rows, `row` apart, ROWS tokens u at once with their tokens t from the first of them on. Pairs are
 * summed over the rows, then into totals[u % ROWS][t - first u], rows n + TILE long, which `by_lag` adds up. */
static void weights_rows(long n, long count, long row, const float *x, const float *g, float *totals)
{
    for (long u = 0; u < n; u += ROWS)
        for (long t = u; t < n; t += WIDE * LANES) {
            memory sums[ROWS * WIDE] = {0};
            for (long r = 0; r < count; r++)
#pragma GCC unroll 8
                for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
                    for (int j = 0; j < WIDE; j++)
                        sums[i * WIDE + j] += x[r * row + u + i] * ((const memory *)(g + r * row + t))[j];
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < WIDE; j++)
                    ((memory *)(totals + i * (n + TILE) + t - u))[j] += sums[i * WIDE + j];
        }
}

/* The same for a group of rows, padded one by one; totals (ROWS, n + TILE) wait for `by_lag`. */
static void weights_group(long count, long n, const float *x, const float *g, float *totals)
{
    long size = n + 2 * TILE;
    unsigned before = flush_subnormals();
    if (count >= ROWS)
        weights_rows(n, count, size, x, g, totals);
    else
        for (long r = 0; r < count; r++)
            weights_row(n, x + r * size, g + r * size, totals);
    restore(before);
}

static void by_lag(long n, const float *totals, float *weights)
{
    for (long lag = 0; lag < n; lag++)
        weights[lag] = 0;
    for (long i = 0; i < ROWS; i++)
        for (long lag = 0; lag < n; lag++)
            weights[lag] += totals[i * (n + TILE) + lag + i];
}

#endif
