/* Element-wise parts in one pass: float32, forward and backward. The formulas stand in kernels/gates.py. */
#include <string.h>
#include "lanes.h"

#define BLOCK 64
#define SAMPLE 4096 /* elements that are worth a thread */

/* y = e^x, for x cut to low..high, which lies within -87..40. */
void FORM(exp_row)(long n, float low, float high, const float *x, float *y)
{
    for (long i = 0; i < n; i++)
        y[i] = exp_within(low, high, x[i]);
}

/* tanh(log(1 + e^k)) = n / (n + 2) with n = e (e + 2), e = e^k; beyond 20 it is 1 in float32. Cut at -87, times k, it can
 * be subnormal: some compilers multiply for every k, and choose afterwards. */
INLINE float mish_share(float k, float *e, float *scale)
{
    *e = exp_within(-80.0f, 20.0f, k);
    float n = *e * (*e + 2.0f);
    *scale = 1.0f / (n + 2.0f);
    return n * *scale;
}

/* Rows of k and v lie k_stride and v_stride apart; y is contiguous. */
void FORM(mish_gate_forward)(long rows, long width, long k_stride, long v_stride, const float *k, const float *v,
                             float *y)
{
#pragma omp parallel for schedule(static) if (rows * width > SAMPLE)
    for (long row = 0; row < rows; row++) {
        const float *a = k + row * k_stride, *b = v + row * v_stride;
        float *out = y + row * width;
        for (long i = 0; i < width; i++) {
            float e, scale;
            out[i] = a[i] * mish_share(a[i], &e, &scale) * b[i];
        }
    }
}

void FORM(mish_gate_backward)(long rows, long width, long k_stride, long v_stride, const float *k, const float *v,
                              const float *g, float *gk, float *gv)
{
#pragma omp parallel for schedule(static) if (rows * width > SAMPLE)
    for (long row = 0; row < rows; row++) {
        const float *a = k + row * k_stride, *b = v + row * v_stride, *from = g + row * width;
        float *to_k = gk + row * width, *to_v = gv + row * width;
        for (long i = 0; i < width; i++) {
            float e, scale, share = mish_share(a[i], &e, &scale);
            to_v[i] = from[i] * a[i] * share;
            to_k[i] = from[i] * b[i] * (share + a[i] * 4.0f * e * (1.0f + e) * scale * scale);
        }
    }
}

/* y may be x, whose rows then lie `width` apart. */
void FORM(sigmoid_gate_forward)(long rows, long width, long r_stride, long x_stride, const float *r, const float *x,
                                float *y)
{
#pragma omp parallel for schedule(static) if (rows * width > SAMPLE)
    for (long row = 0; row < rows; row++)
#pragma GCC ivdep
        for (long i = 0; i < width; i++)
            y[row * width + i] = x[row * x_stride + i] / (1.0f + exp_within(-87.0f, 40.0f, -r[row * r_stride + i]));
}

void FORM(sigmoid_gate_backward)(long rows, long width, long r_stride, long x_stride, const float *r, const float *x,
                                 const float *g, float *gr, float *gx)
{
#pragma omp parallel for schedule(static) if (rows * width > SAMPLE)
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < width; i++) {
            float e = exp_within(-87.0f, 40.0f, -r[row * r_stride + i]), open = 1.0f / (1.0f + e);
            float out = g[row * width + i] * open;
            gx[row * width + i] = out;
            gr[row * width + i] = out * x[row * x_stride + i] * e * open;
        }
}

/* y may be k. */
void FORM(squared_relu_forward)(long rows, long width, long stride, const float *k, float *y)
{
#pragma omp parallel for schedule(static) if (rows * width > SAMPLE)
    for (long row = 0; row < rows; row++)
#pragma GCC ivdep
        for (long i = 0; i < width; i++) {
            float x = k[row * stride + i], above = x < 0.0f ? 0.0f : x;
            y[row * width + i] = above * above;
        }
}

void FORM(squared_relu_backward)(long rows, long width, long stride, const float *k, const float *g, float *gk)
{
#pragma omp parallel for schedule(static) if (rows * width > SAMPLE)
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < width; i++) {
            float x = k[row * stride + i], above = x < 0.0f ? 0.0f : x;
            gk[row * width + i] = 2.0f * above * g[row * width + i];
        }
}

/* x (B, T, D), mixes (N, D), last (B, D) → y (N, B, T, D) = before + (x - before) mix; last stands before token 0. */
void FORM(token_mix_forward)(long N, long B, long T, long D, const float *x, const float *mixes, const float *last,
                             float *y)
{
#pragma omp parallel for collapse(2) schedule(static) if (B * T * D > SAMPLE)
    for (long b = 0; b < B; b++)
        for (long t = 0; t < T; t++) {
            const float *now = x + (b * T + t) * D, *before = t ? now - D : last + b * D;
            for (long n = 0; n < N; n++) {
                float *out = y + ((n * B + b) * T + t) * D;
                const float *mix = mixes + n * D;
                for (long d = 0; d < D; d++)
                    out[d] = before[d] + (now[d] - before[d]) * mix[d];
            }
        }
}

INLINE void mix_token_back(int n, const float *now, const float *before, const float *mix, const float *g, float *g_now,
                           float *g_before, float *sums)
{
    for (int d = 0; d < n; d++) {
        float part = g[d] * mix[d];
        g_now[d] += part;
        g_before[d] += g[d] - part;
        sums[d] += g[d] * (now[d] - before[d]);
    }
}

/* g (N, B, T, D) → gx (B, T, D), g_mixes (B, N, D), g_last (B, D): all zeros at first. */
void FORM(token_mix_backward)(long N, long B, long T, long D, const float *x, const float *mixes, const float *last,
                              const float *g, float *gx, float *g_mixes, float *g_last)
{
    long blocks = (D + BLOCK - 1) / BLOCK;
#pragma omp parallel for collapse(2) schedule(static) if (B * T * D > SAMPLE)
    for (long b = 0; b < B; b++)
        for (long block = 0; block < blocks; block++) {
            long c = block * BLOCK;
            int n = D - c < BLOCK ? (int)(D - c) : BLOCK;
            for (long t = 0; t < T; t++) {
                long at = (b * T + t) * D + c, first = b * D + c;
                const float *now = x + at, *before = t ? now - D : last + first;
                float *to = gx + at, *to_before = t ? to - D : g_last + first;
                for (long i = 0; i < N; i++)
                    mix_token_back(n, now, before, mixes + i * D + c, g + i * B * T * D + at, to, to_before,
                                   g_mixes + (b * N + i) * D + c);
            }
        }
}
