/* RWKV-4's weighted key-value on the CPU: float32, forward and backward. The formula stands in kernels/wkv4.py.
 *
 * Work is split over (batch, block of channels); within a block the innermost loop runs over channels, which are
 * independent, so the compiler turns it into vector code. Of the two exponentials of a log-space update one is always
 * 1, so each update costs one: e^-|difference|. The backward pass keeps the state every SEGMENT tokens and computes
 * what lies between again.
 */
#include <math.h>
#include <stdlib.h>

#define INLINE static inline __attribute__((always_inline))
#define BLOCK 64
#define SEGMENT 64
#define EMPTY -1e38f

/* e^x for x <= 0, relative error below 2e-7 down to -87, where it stays; NaN stays NaN. Cody and Waite's reduction. */
INLINE float exp_negative(float x)
{
    union { int i; float f; } power;
    x = x < -87.0f ? -87.0f : x;
    float n = nearbyintf(x * 1.44269504f);
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    power.i = ((int)n + 127) << 23;
    return p * power.f;
}

typedef struct { float a[BLOCK], b[BLOCK], p[BLOCK]; } State;

/* One token: y = the weighted mean with the bonus; then the state takes the token in. */
INLINE void step(int n, State *s, const float *w, const float *u, const float *k, const float *v, float *y)
{
    for (int c = 0; c < n; c++) {
        float bonus = u[c] + k[c], d = s->p[c] - bonus, e = exp_negative(-fabsf(d));
        float past = d > 0 ? 1.0f : e, present = d > 0 ? e : 1.0f;
        y[c] = (past * s->a[c] + present * v[c]) / (past * s->b[c] + present);
        float decayed = s->p[c] - w[c];
        d = decayed - k[c];
        e = exp_negative(-fabsf(d));
        past = d > 0 ? 1.0f : e;
        present = d > 0 ? e : 1.0f;
        s->a[c] = past * s->a[c] + present * v[c];
        s->b[c] = past * s->b[c] + present;
        s->p[c] = d > 0 ? decayed : k[c];
    }
}

INLINE void load(int n, State *s, const float *state, long C)
{
    for (int c = 0; c < n; c++) {
        s->a[c] = state[c];
        s->b[c] = state[C + c];
        s->p[c] = state[2 * C + c];
    }
}

INLINE void store(int n, const State *s, float *state, long C)
{
    for (int c = 0; c < n; c++) {
        state[c] = s->a[c];
        state[C + c] = s->b[c];
        state[2 * C + c] = s->p[c];
    }
}

static void forward_block(int n, long T, long C, const float *w, const float *u, const float *k, const float *v,
                                 float *state, float *y)
{
    State s;
    load(n, &s, state, C);
    if (n == BLOCK)
        for (long t = 0; t < T; t++)
            step(BLOCK, &s, w, u, k + t * C, v + t * C, y + t * C);
    else
        for (long t = 0; t < T; t++)
            step(n, &s, w, u, k + t * C, v + t * C, y + t * C);
    store(n, &s, state, C);
}

/* w, u (C); k, v, y (B, T, C); state (B, 3, C), changed in place. */
void wkv4_forward(long B, long T, long C, const float *w, const float *u, const float *k, const float *v, float *state,
                  float *y)
{
    long blocks = (C + BLOCK - 1) / BLOCK;
#pragma omp parallel for collapse(2) schedule(static)
    for (long b = 0; b < B; b++)
        for (long block = 0; block < blocks; block++) {
            long c = block * BLOCK, at = b * T * C + c;
            int n = C - c < BLOCK ? (int)(C - c) : BLOCK;
            forward_block(n, T, C, w + c, u + c, k + at, v + at, state + b * 3 * C + c, y + at);
        }
}

/* What a segment's forward pass leaves for its backward pass, a row a token: y; q, the scale e^q of the denominator;
 * r, the output's gradient over the scaled denominator; own, r times the weight of the token's own value. */
typedef struct { float y[BLOCK], q[BLOCK], r[BLOCK], own[BLOCK]; } Row;

/* a and b as in State, and their derivatives by -w, all scaled by e^p. */
typedef struct { State s; float da[BLOCK], db[BLOCK]; } Slopes;

INLINE void slope_step(int n, Slopes *x, const float *w, const float *u, const float *k, const float *v,
                              const float *g, float *gw, float *gu)
{
    State *s = &x->s;
    for (int c = 0; c < n; c++) {
        float bonus = u[c] + k[c], d = s->p[c] - bonus, e = exp_negative(-fabsf(d));
        float past = d > 0 ? 1.0f : e, present = d > 0 ? e : 1.0f;
        float scale = 1.0f / (past * s->b[c] + present), y = (past * s->a[c] + present * v[c]) * scale;
        gw[c] -= g[c] * past * (x->da[c] - y * x->db[c]) * scale;
        gu[c] += g[c] * present * (v[c] - y) * scale;
        float decayed = s->p[c] - w[c];
        d = decayed - k[c];
        e = exp_negative(-fabsf(d));
        past = d > 0 ? 1.0f : e;
        present = d > 0 ? e : 1.0f;
        x->da[c] = past * (x->da[c] + s->a[c]);
        x->db[c] = past * (x->db[c] + s->b[c]);
        s->a[c] = past * s->a[c] + present * v[c];
        s->b[c] = past * s->b[c] + present;
        s->p[c] = d > 0 ? decayed : k[c];
    }
}

INLINE void row_step(int n, State *s, const float *w, const float *u, const float *k, const float *v,
                            const float *g, Row *row)
{
    for (int c = 0; c < n; c++) {
        float bonus = u[c] + k[c], d = s->p[c] - bonus, e = exp_negative(-fabsf(d));
        float past = d > 0 ? 1.0f : e, present = d > 0 ? e : 1.0f;
        float scale = 1.0f / (past * s->b[c] + present);
        row->y[c] = (past * s->a[c] + present * v[c]) * scale;
        row->q[c] = d > 0 ? s->p[c] : bonus;
        row->r[c] = g[c] * scale;
        row->own[c] = row->r[c] * present;
        float decayed = s->p[c] - w[c];
        d = decayed - k[c];
        e = exp_negative(-fabsf(d));
        past = d > 0 ? 1.0f : e;
        present = d > 0 ? e : 1.0f;
        s->a[c] = past * s->a[c] + present * v[c];
        s->b[c] = past * s->b[c] + present;
        s->p[c] = d > 0 ? decayed : k[c];
    }
}

/* From the last token to the first: s->a and s->b sum the later r and r y, scaled by e^p. */
INLINE void reverse_step(int n, State *s, const float *w, const float *k, const float *v, const Row *row, float *gk,
                                float *gv)
{
    for (int c = 0; c < n; c++) {
        float later = exp_negative(k[c] + s->p[c]);
        gv[c] = later * s->a[c] + row->own[c];
        gk[c] = later * (v[c] * s->a[c] - s->b[c]) + row->own[c] * (v[c] - row->y[c]);
        float decayed = s->p[c] - w[c], d = decayed + row->q[c], e = exp_negative(-fabsf(d));
        float past = d > 0 ? 1.0f : e, present = (d > 0 ? e : 1.0f) * row->r[c];
        s->a[c] = past * s->a[c] + present;
        s->b[c] = past * s->b[c] + present * row->y[c];
        s->p[c] = d > 0 ? decayed : -row->q[c];
    }
}

INLINE void clear(State *s)
{
    for (int c = 0; c < BLOCK; c++) {
        s->a[c] = s->b[c] = 0.0f;
        s->p[c] = EMPTY;
    }
}

static void backward_block(int n, long T, long C, const float *w, const float *u, const float *k, const float *v,
                                  const float *g, float *gw, float *gu, float *gk, float *gv, State *saved, Row *rows)
{
    Slopes x = {0};
    State s;
    clear(&x.s);
    for (long t = 0; t < T; t++) {
        if (t % SEGMENT == 0)
            saved[t / SEGMENT] = x.s;
        slope_step(n, &x, w, u, k + t * C, v + t * C, g + t * C, gw, gu);
    }
    clear(&s);
    for (long segment = (T - 1) / SEGMENT; segment >= 0; segment--) {
        long start = segment * SEGMENT, stop = start + SEGMENT < T ? start + SEGMENT : T;
        State again = saved[segment];
        for (long t = start; t < stop; t++)
            row_step(n, &again, w, u, k + t * C, v + t * C, g + t * C, rows + t - start);
        for (long t = stop - 1; t >= start; t--)
            reverse_step(n, &s, w, k + t * C, v + t * C, rows + t - start, gk + t * C, gv + t * C);
    }
}

/* g (B, T, C), the gradient of y, from an empty state; gw, gu (B, C), zeros at first, gk, gv (B, T, C) are written.
 * Returns 0, or 1 when there is no memory left. */
int wkv4_backward(long B, long T, long C, const float *w, const float *u, const float *k, const float *v, const float *g,
                  float *gw, float *gu, float *gk, float *gv)
{
    long blocks = (C + BLOCK - 1) / BLOCK;
    int failed = 0;
#pragma omp parallel
    {
        State *saved = malloc(sizeof(State) * (size_t)((T + SEGMENT - 1) / SEGMENT));
        Row *rows = malloc(sizeof(Row) * SEGMENT);
        if (!saved || !rows) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
        for (long b = 0; b < B; b++)
            for (long block = 0; block < blocks; block++) {
                long c = block * BLOCK, at = b * T * C + c;
                int n = C - c < BLOCK ? (int)(C - c) : BLOCK;
                if (!failed)
                    backward_block(n, T, C, w + c, u + c, k + at, v + at, g + at, gw + b * C + c, gu + b * C + c, gk + at,
                                   gv + at, saved, rows);
            }
        free(saved);
        free(rows);
    }
    return failed;
}
