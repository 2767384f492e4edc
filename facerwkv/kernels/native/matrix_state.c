/* RWKV-6's and RWKV-7's recurrences on the CPU: float32, forward and backward. The formulas stand in kernels/wkv6.py and
 * kernels/wkv7.py; N must be a multiple of 16 and at most MAX_SIZE.
 *
 * Work is split over (batch, head): a head's state, 16 KB at N = 64, stays in the first-level cache while its tokens pass.
 * The backward passes keep the state every SEGMENT tokens and compute what lies between again. They hold it transposed,
 * values by keys: all but one or two of a token's gradients are then sums over rows, which need no sums within a vector.
 */
#include <stdlib.h>
#include <string.h>
#include "lanes.h"

#define MAX_SIZE 256 /* of a head */
#define MAX_PARTS (MAX_SIZE / LANES)
#define SEGMENT 16
#define EACH(p) for (int p = 0; p < parts; p++)

INLINE float sum(lanes x)
{
    typedef float four __attribute__((vector_size(16)));
    union { lanes whole; four parts[LANES / 4]; } a = {x};
    for (int n = LANES / 8; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            a.parts[i] += a.parts[i + n];
    return (a.parts[0][0] + a.parts[0][2]) + (a.parts[0][1] + a.parts[0][3]);
}

INLINE void transpose(int n, const float *from, float *to)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            to[j * n + i] = from[i * n + j];
}

/* What lies in memory for one token: vectors of N numbers. */
typedef struct { const memory *r, *w, *k, *v, *a, *b, *u, *g; } Token;
typedef struct { memory *r, *w, *k, *v, *a, *b, *u; } Gradient;

INLINE Token token_at(const Token *x, long at)
{
#define AT(name) (x->name ? (const memory *)((const float *)x->name + at) : NULL)
    return (Token){AT(r), AT(w), AT(k), AT(v), AT(a), AT(b), x->u, AT(g)};
#undef AT
}

INLINE Gradient gradient_at(const Gradient *x, long at)
{
#define AT(name) (x->name ? (memory *)((float *)x->name + at) : NULL)
    return (Gradient){AT(r), AT(w), AT(k), AT(v), AT(a), AT(b), x->u};
#undef AT
}

INLINE void forward6(int parts, Token x, memory *state, memory *y)
{
    const float *r = (const float *)x.r, *w = (const float *)x.w, *k = (const float *)x.k;
    lanes v[MAX_PARTS], out[MAX_PARTS], bonus = {0};
    EACH(p) bonus += x.r[p] * x.u[p] * x.k[p];
    float own = sum(bonus);
    EACH(p) {
        v[p] = x.v[p];
        out[p] = own * v[p];
    }
    for (int i = 0; i < parts * LANES; i++, state += parts) {
        float ri = r[i], wi = w[i], ki = k[i];
        EACH(p) {
            lanes s = state[p];
            out[p] += ri * s;
            state[p] = wi * s + ki * v[p];
        }
    }
    EACH(p) y[p] = out[p];
}

INLINE void forward7(int parts, Token x, memory *state, memory *y)
{
    const float *r = (const float *)x.r, *w = (const float *)x.w, *k = (const float *)x.k;
    const float *a = (const float *)x.a, *b = (const float *)x.b;
    lanes v[MAX_PARTS], read[MAX_PARTS], out[MAX_PARTS];
    EACH(p) {
        v[p] = x.v[p];
        read[p] = out[p] = (lanes){0};
    }
    memory *row = state;
    for (int i = 0; i < parts * LANES; i++, row += parts)
        EACH(p) read[p] += a[i] * row[p];
    row = state;
    for (int i = 0; i < parts * LANES; i++, row += parts) {
        float ri = r[i], wi = w[i], ki = k[i], bi = b[i];
        EACH(p) {
            lanes s = wi * row[p] + bi * read[p] + ki * v[p];
            out[p] += ri * s;
            row[p] = s;
        }
    }
    EACH(p) y[p] = out[p];
}

/* The transposed state after a token, from that before it (the same place, or another). */
INLINE void advance6(int parts, Token x, const memory *before, memory *after)
{
    const float *v = (const float *)x.v;
    lanes w[MAX_PARTS], k[MAX_PARTS];
    EACH(p) {
        w[p] = x.w[p];
        k[p] = x.k[p];
    }
    for (int j = 0; j < parts * LANES; j++, before += parts, after += parts) {
        float vj = v[j];
        EACH(p) after[p] = w[p] * before[p] + k[p] * vj;
    }
}

/* Also what a reads of the state, (N). */
INLINE void advance7(int parts, Token x, const memory *before, memory *after, float *read)
{
    const float *v = (const float *)x.v;
    lanes w[MAX_PARTS], k[MAX_PARTS], a[MAX_PARTS], b[MAX_PARTS];
    EACH(p) {
        w[p] = x.w[p];
        k[p] = x.k[p];
        a[p] = x.a[p];
        b[p] = x.b[p];
    }
    for (int j = 0; j < parts * LANES; j++, before += parts, after += parts) {
        lanes dot = {0};
        EACH(p) dot += a[p] * before[p];
        float vj = v[j], readj = read[j] = sum(dot);
        EACH(p) after[p] = w[p] * before[p] + b[p] * readj + k[p] * vj;
    }
}

/* back: the transposed gradient of the state after the token; becomes that of the state before it. */
INLINE void backward6(int parts, Token x, const memory *state, memory *back, Gradient out)
{
    const float *v = (const float *)x.v, *g = (const float *)x.g;
    lanes r[MAX_PARTS], w[MAX_PARTS], k[MAX_PARTS], gr[MAX_PARTS], gw[MAX_PARTS], gk[MAX_PARTS];
    lanes vg_lanes = {0}, bonus = {0};
    EACH(p) {
        vg_lanes += x.v[p] * x.g[p];
        bonus += x.r[p] * x.u[p] * x.k[p];
    }
    float vg = sum(vg_lanes), own = sum(bonus), *gv = (float *)out.v;
    EACH(p) {
        r[p] = x.r[p];
        w[p] = x.w[p];
        k[p] = x.k[p];
        gr[p] = x.u[p] * k[p] * vg;
        gk[p] = x.u[p] * r[p] * vg;
        gw[p] = (lanes){0};
        out.u[p] += r[p] * k[p] * vg;
    }
    for (int j = 0; j < parts * LANES; j++, state += parts, back += parts) {
        float vj = v[j], gj = g[j];
        lanes dot = {0};
        EACH(p) {
            lanes later = back[p];
            gr[p] += gj * state[p];
            gk[p] += vj * later;
            gw[p] += state[p] * later;
            dot += k[p] * later;
            back[p] = w[p] * later + r[p] * gj;
        }
        gv[j] = sum(dot) + own * gj;
    }
    EACH(p) {
        out.r[p] = gr[p];
        out.k[p] = gk[p];
        out.w[p] = gw[p] * w[p];
    }
}

INLINE void backward7(int parts, Token x, const memory *before, const memory *after, const float *read, memory *back, Gradient out)
{
    const float *v = (const float *)x.v, *g = (const float *)x.g;
    lanes gr[MAX_PARTS], gw[MAX_PARTS], gk[MAX_PARTS], ga[MAX_PARTS], gb[MAX_PARTS];
    float *gv = (float *)out.v;
    EACH(p) gr[p] = gw[p] = gk[p] = ga[p] = gb[p] = (lanes){0};
    for (int j = 0; j < parts * LANES; j++, before += parts, after += parts, back += parts) {
        float vj = v[j], gj = g[j], readj = read[j];
        lanes later[MAX_PARTS], of_v = {0}, of_read = {0};
        EACH(p) {
            later[p] = back[p] + x.r[p] * gj;
            of_v += x.k[p] * later[p];
            of_read += x.b[p] * later[p];
        }
        float gread = sum(of_read);
        gv[j] = sum(of_v);
        EACH(p) {
            gr[p] += gj * after[p];
            gk[p] += vj * later[p];
            gb[p] += readj * later[p];
            gw[p] += before[p] * later[p];
            ga[p] += gread * before[p];
            back[p] = x.w[p] * later[p] + x.a[p] * gread;
        }
    }
    EACH(p) {
        out.r[p] = gr[p];
        out.w[p] = gw[p] * x.w[p];
        out.k[p] = gk[p];
        out.a[p] = ga[p];
        out.b[p] = gb[p];
    }
}

typedef struct { long T, step, size; } Shape; /* tokens, numbers from one to the next, numbers of a state */

INLINE void forward_head(int parts, Shape s, Token x, memory *state, float *y)
{
    for (long t = 0, at = 0; t < s.T; t++, at += s.step)
        if (x.a)
            forward7(parts, token_at(&x, at), state, (memory *)(y + at));
        else
            forward6(parts, token_at(&x, at), state, (memory *)(y + at));
}

INLINE void advance(int parts, Token x, const memory *before, memory *after, float *read)
{
    if (x.a)
        advance7(parts, x, before, after, read);
    else
        advance6(parts, x, before, after);
}

/* state and back (N, N): the state before the first token, the gradient of that after the last; back becomes that of state.
 * scratch: (T / SEGMENT rounded up + SEGMENT + 2) states, SEGMENT rows of N. */
INLINE void backward_head(int parts, Shape s, Token x, const float *state, float *back, Gradient out, float *scratch)
{
    int n = parts * LANES;
    long segments = (s.T + SEGMENT - 1) / SEGMENT;
    float *saved = scratch, *states = saved + segments * s.size, *later = states + (SEGMENT + 1) * s.size;
    float *reads = later + s.size;
    transpose(n, state, states);
    for (long t = 0; t < s.T; t++) {
        if (t % SEGMENT == 0)
            memcpy(saved + t / SEGMENT * s.size, states, sizeof(float) * (size_t)s.size);
        advance(parts, token_at(&x, t * s.step), (memory *)states, (memory *)states, reads);
    }
    transpose(n, back, later);
    for (long start = (segments - 1) * SEGMENT; start >= 0; start -= SEGMENT) {
        int length = s.T - start < SEGMENT ? (int)(s.T - start) : SEGMENT;
        memcpy(states, saved + start / SEGMENT * s.size, sizeof(float) * (size_t)s.size);
        for (int t = 0; t < length; t++) {
            float *before = states + t * s.size;
            advance(parts, token_at(&x, (start + t) * s.step), (memory *)before, (memory *)(before + s.size), reads + t * n);
        }
        for (int t = length - 1; t >= 0; t--) {
            long at = (start + t) * s.step;
            const memory *before = (memory *)(states + t * s.size), *after = (memory *)(states + (t + 1) * s.size);
            if (x.a)
                backward7(parts, token_at(&x, at), before, after, reads + t * n, (memory *)later, gradient_at(&out, at));
            else
                backward6(parts, token_at(&x, at), before, (memory *)later, gradient_at(&out, at));
        }
    }
    transpose(n, later, back);
}

static void forward(long B, long H, long N, Shape s, Token x, float *state, float *y)
{
#pragma omp parallel for schedule(static)
    for (long head = 0; head < B * H; head++) {
        long at = head / H * s.T * s.step + head % H * N;
        Token here = token_at(&x, at);
        here.u = x.u ? (const memory *)((const float *)x.u + head % H * N) : NULL;
        memory *mine = (memory *)(state + head * s.size);
        if (N == 64)
            forward_head(64 / LANES, s, here, mine, y + at);
        else
            forward_head((int)(N / LANES), s, here, mine, y + at);
    }
}

static int backward(long B, long H, long N, Shape s, Token x, const float *state, float *back, Gradient out)
{
    int failed = 0;
    size_t numbers = (size_t)(((s.T + SEGMENT - 1) / SEGMENT + SEGMENT + 2) * s.size + SEGMENT * N);
#pragma omp parallel
    {
        float *scratch = malloc(sizeof(float) * numbers);
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (long head = 0; head < B * H; head++) {
            long at = head / H * s.T * s.step + head % H * N;
            Token here = token_at(&x, at);
            Gradient there = gradient_at(&out, at);
            here.u = x.u ? (const memory *)((const float *)x.u + head % H * N) : NULL;
            there.u = out.u ? (memory *)((float *)out.u + head * N) : NULL;
            if (failed)
                continue;
            if (N == 64)
                backward_head(64 / LANES, s, here, state + head * s.size, back + head * s.size, there, scratch);
            else
                backward_head((int)(N / LANES), s, here, state + head * s.size, back + head * s.size, there, scratch);
        }
        free(scratch);
    }
    return failed;
}

#define V(pointer) ((const memory *)(pointer))
#define G(pointer) ((memory *)(pointer))

/* r, k, v, decays w, y (B, T, H, N); u (H, N); state (B, H, N, N), changed in place. */
void FORM(wkv6_forward)(long B, long T, long H, long N, const float *r, const float *k, const float *v, const float *w,
                        const float *u, float *state, float *y)
{
    Token x = {.r = V(r), .k = V(k), .v = V(v), .w = V(w), .u = V(u)};
    forward(B, H, N, (Shape){T, H * N, N * N}, x, state, y);
}

/* r, decays w, k, v, a, b, y (B, T, H, N); state (B, H, N, N), changed in place. */
void FORM(wkv7_forward)(long B, long T, long H, long N, const float *r, const float *w, const float *k, const float *v,
                        const float *a, const float *b, float *state, float *y)
{
    Token x = {.r = V(r), .k = V(k), .v = V(v), .w = V(w), .a = V(a), .b = V(b)};
    forward(B, H, N, (Shape){T, H * N, N * N}, x, state, y);
}

/* g (B, T, H, N), the gradient of y; back (B, H, N, N), that of the state after the last token, becomes that of state. Written:
 * the gradients of r, k, v and log w (B, T, H, N); gu (B, H, N), zeros at first. Returns 1 when there is no memory left. */
int FORM(wkv6_backward)(long B, long T, long H, long N, const float *r, const float *k, const float *v, const float *w,
                        const float *u, const float *state, const float *g, float *back, float *gr, float *gk,
                        float *gv, float *gw, float *gu)
{
    Token x = {.r = V(r), .k = V(k), .v = V(v), .w = V(w), .u = V(u), .g = V(g)};
    Gradient out = {.r = G(gr), .k = G(gk), .v = G(gv), .w = G(gw), .u = G(gu)};
    return backward(B, H, N, (Shape){T, H * N, N * N}, x, state, back, out);
}

/* As wkv6_backward. */
int FORM(wkv7_backward)(long B, long T, long H, long N, const float *r, const float *w, const float *k, const float *v,
                        const float *a, const float *b, const float *state, const float *g, float *back, float *gr,
                        float *gw, float *gk, float *gv, float *ga, float *gb)
{
    Token x = {.r = V(r), .k = V(k), .v = V(v), .w = V(w), .a = V(a), .b = V(b), .g = V(g)};
    Gradient out = {.r = G(gr), .k = G(gk), .v = G(gv), .w = G(gw), .a = G(ga), .b = G(gb)};
    return backward(B, H, N, (Shape){T, H * N, N * N}, x, state, back, out);
}
