/* The bidirectional weighted key-value on the CPU: float32, forward and backward. Its formula is in kernels/biwkv.py.
 *
 * Work is split over (batch, blocks of channels) and goes along the tokens in segments, for one group of LANES channels
 * after the other. What lies after a segment is summed up in a first pass from the last token to the first, and kept
 * only at the segments' ends. Long sequences want wide blocks: every row of a narrow one lies on another page.
 *
 * A sum is a * 2^m with a whole m: so sums of any size are brought to one scale without rounding. Where the keys of a
 * segment lie within SPREAD powers of two of the largest thing in and around it ("calm"), all its sums share one scale,
 * and a token costs one exponential and a few products; elsewhere ("wild") every sum has its own.
 */
#include <math.h>
#include <stdlib.h>
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define MIN_GROUPS 4 /* a block's; with fewer, rows are shorter than what memory hands over at once */
#define MAX_GROUPS 24
#define CACHE 500000L /* bytes of a second-level cache that hold a block */
#define SEGMENT 16
#define SPREAD 72
#define MAX_BONUS 10.0f /* larger ones, and decays that grow by more than e^5 in a segment, are never calm */
#define MAX_GROWTH (5.0f / SEGMENT)
#define EMPTY (-(1 << 28))
#define ONE ((lanes){0} + 1.0f)

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int whole __attribute__((vector_size(4 * LANES)));
typedef float memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* What lies on one side of a token: a 2^m and b 2^m. */
typedef struct { lanes a, b; whole m; } Side;

/* e^-w = (fade + rest) 2^fade_m, as one number would err more with every token; e^u = bonus 2^bonus_m. In a segment
 * fade alone shrinks sums by about 2^drift. Those for calm segments hold their power of two. */
typedef struct {
    lanes fade, rest, bonus, calm_fade, calm_rest, calm_bonus;
    whole fade_m, bonus_m, drift;
    int calm;
} Channels;

INLINE lanes blend(whole mask, lanes yes, lanes no)
{
    return (lanes)((mask & (whole)yes) | (~mask & (whole)no));
}

INLINE lanes larger(lanes x, lanes y) { return blend(x > y, x, y); }
INLINE lanes smaller(lanes x, lanes y) { return blend(x < y, x, y); }
INLINE whole higher(whole x, whole y) { return ((x > y) & x) | (~(x > y) & y); }
INLINE lanes magnitude(lanes x) { return (lanes)((whole)x & 0x7fffffff); }

/* Whether every lane is true. */
INLINE int all(whole mask)
{
    int yes = -1;
    for (int i = 0; i < LANES; i++)
        yes &= mask[i];
    return yes;
}

/* 2^m for -127 < m < 128. */
INLINE lanes power(whole m) { return (lanes)((m + 127) << 23); }

/* The same, and 0 for smaller m. */
INLINE lanes power_or_0(whole m) { return power(higher(m, (whole){0} - 127)); }

/* The m nearest to x / ln 2. */
INLINE whole exponent(lanes x)
{
    return (whole)(x * 1.44269504f + 12582912.0f) - 0x4b400000; /* 1.5 * 2^23 leaves it in the low bits */
}

/* e^x / 2^m with m = exponent(x), relative error below 2e-7; NaN stays NaN. Cody and Waite's reduction. */
INLINE lanes fraction(lanes x, whole m)
{
    lanes n = __builtin_convertvector(m, lanes), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r + 1.0f;
}

INLINE lanes fetch(int n, const float *from)
{
    if (n == LANES)
        return *(const memory *)from;
    lanes x = {0};
    for (int c = 0; c < n; c++)
        x[c] = from[c];
    return x;
}

INLINE void put(int n, lanes x, float *to)
{
    if (n == LANES)
        *(memory *)to = x;
    else
        for (int c = 0; c < n; c++)
            to[c] = x[c];
}

/* e^x = (f + rest) 2^m; x is cut off at 1e4, which is beyond any float. Returns log2 f. */
INLINE float split(float x, float *f, float *rest, int *m)
{
    double kept = x < -1e4f ? -1e4 : x > 1e4f ? 1e4 : (double)x, power = kept * 1.4426950408889634;
    *m = x == x ? (int)(power + (power < 0 ? -0.5 : 0.5)) : 0;
    double exact = exp(kept - *m * 0.6931471805599453);
    *f = (float)exact;
    *rest = (float)(exact - *f);
    return (float)(power - *m);
}

INLINE Channels channels_of(int n, const float *w, const float *u)
{
    Channels x;
    lanes rates = fetch(n, w), bonuses = fetch(n, u);
    for (int c = 0; c < LANES; c++) {
        float fade, rest, bonus, unused;
        int fade_m, bonus_m;
        float shrinks = split(-rates[c], &fade, &rest, &fade_m);
        split(bonuses[c], &bonus, &unused, &bonus_m);
        x.fade[c] = fade, x.rest[c] = rest, x.fade_m[c] = fade_m;
        x.bonus[c] = bonus, x.bonus_m[c] = bonus_m;
        x.drift[c] = rates[c] == rates[c] ? (int)(SEGMENT * shrinks) : 0;
    }
    x.calm = all((rates >= -MAX_GROWTH) & (magnitude(bonuses) <= MAX_BONUS));
    x.calm_fade = x.fade * power_or_0(x.fade_m);
    x.calm_rest = x.rest * power_or_0(x.fade_m) * x.calm_fade;
    x.calm_bonus = x.bonus * power_or_0(x.bonus_m);
    return x;
}

INLINE Side empty(void) { return (Side){{0}, {0}, (whole){0} + EMPTY}; }

/* The same sums with another m; what that makes too small becomes 0. */
INLINE Side at_scale(Side s, whole m)
{
    lanes factor = power_or_0(s.m - m);
    return (Side){s.a * factor, s.b * factor, m};
}

/* The same with b between 1 and 2, b > 0 given. */
INLINE Side normal(Side s)
{
    whole up = ((whole)s.b >> 23) - 127;
    lanes factor = power(-up);
    return (Side){s.a * factor, s.b * factor, s.m + up};
}

/* Calm: fade by one w, then add (x, y). The rest is taken of the sums one token earlier, which are ready earlier: so a
 * number misses it once, not once a token. */
INLINE void add(Side *s, Side *earlier, const Channels *c, lanes x, lanes y)
{
    Side now = *s;
    s->a = c->calm_fade * now.a + (c->calm_rest * earlier->a + x);
    s->b = c->calm_fade * now.b + (c->calm_rest * earlier->b + y);
    *earlier = now;
}

/* Wild: fade by one w, then add (x, y) 2^m. */
INLINE void take(Side *s, const Channels *c, whole m, lanes x, lanes y)
{
    whole faded = higher(s->m + c->fade_m, (whole){0} + EMPTY), top = higher(faded, m);
    lanes past = power_or_0(faded - top), present = power_or_0(m - top);
    s->a = past * (c->fade * s->a + c->rest * s->a) + present * x;
    s->b = past * (c->fade * s->b + c->rest * s->b) + present * y;
    s->m = top;
}

/* The end of a wild segment. */
INLINE Side settle(Side s, const Channels *c)
{
    lanes factor = power(-c->drift);
    return (Side){s.a * factor, s.b * factor, s.m + c->drift};
}

/* A segment of a group: its tokens, e^k = e 2^m (where all is calm e 2^top), g the gradient of y; for each token y; q,
 * the power of two of its denominator; r, g over the denominator times 2^q; what lies before and after it, and r and
 * r y of the tokens before it. */
typedef struct {
    int length, calm;
    whole top, m[SEGMENT], q[SEGMENT];
    lanes high, low, k[SEGMENT], v[SEGMENT], e[SEGMENT], g[SEGMENT], y[SEGMENT], r[SEGMENT];
    Side before[SEGMENT], after[SEGMENT], past[SEGMENT];
} Tile;

/* Sets e, m, top, and whether all of the segment is calm; `around` is the largest m before and after it. */
INLINE void scale(Tile *x, const Channels *c, whole around)
{
    x->top = higher(exponent(x->high), around);
    x->calm = c->calm && all((x->top - exponent(x->low) <= SPREAD) & (magnitude(x->high) < 1e6f));
    for (int t = 0; t < x->length; t++) {
        if (x->calm) {
            whole m = exponent(x->k[t]);
            x->e[t] = fraction(x->k[t], m) * power(m - x->top);
        } else {
            lanes k = larger(smaller(x->k[t], (lanes){0} + 1e6f), (lanes){0} - 1e6f);
            k = blend(x->k[t] == x->k[t], k, x->k[t]);
            x->m[t] = exponent(k);
            x->e[t] = fraction(k, x->m[t]);
        }
    }
}

/* What comes after the segment to what comes after the one before it; keeps what follows each token if asked to. */
INLINE Side sum_after(Tile *x, const Channels *c, Side after, int keep)
{
    Side s = x->calm ? at_scale(after, x->top) : after, earlier = s;
    for (int t = x->length - 1; t >= 0; t--) {
        if (keep)
            x->after[t] = s;
        if (x->calm)
            add(&s, &earlier, c, x->e[t] * x->v[t], x->e[t]);
        else
            take(&s, c, x->m[t], x->e[t] * x->v[t], x->e[t]);
    }
    return x->calm ? normal(s) : settle(s, c);
}

/* y at a token, given what comes before it; keeps q and r too if gradients are wanted. */
INLINE lanes mean(Tile *x, const Channels *c, int t, Side before, int gradients)
{
    Side after = x->after[t];
    lanes own = (x->calm ? c->calm_bonus : c->bonus) * x->e[t];
    if (!x->calm) {
        whole m = c->bonus_m + x->m[t], q = higher(higher(before.m, after.m), m);
        before = at_scale(before, q);
        after = at_scale(after, q);
        own *= power_or_0(m - q);
        x->q[t] = q;
    }
    lanes scale = ONE / (before.b + after.b + own);
    if (gradients)
        x->r[t] = x->g[t] * scale;
    return (before.a + after.a + own * x->v[t]) * scale;
}

/* What comes before the segment to what comes before the next; writes y or, given a `past`, keeps all for gradients. */
INLINE void sum_before(Tile *x, const Channels *c, Side *before, Side *past, int n, float *to, long C)
{
    Side s = x->calm ? at_scale(*before, x->top) : *before, r = empty();
    if (past)
        r = x->calm ? at_scale(*past, -x->top) : *past;
    Side earlier = s, earlier_r = r;
    for (int t = 0; t < x->length; t++) {
        lanes y = mean(x, c, t, s, past != NULL);
        if (!past)
            put(n, y, to + t * C);
        else {
            x->y[t] = y;
            x->before[t] = s;
            x->past[t] = r;
            if (x->calm)
                add(&r, &earlier_r, c, x->r[t], x->r[t] * x->y[t]);
            else
                take(&r, c, -x->q[t], x->r[t], x->r[t] * x->y[t]);
        }
        if (x->calm)
            add(&s, &earlier, c, x->e[t] * x->v[t], x->e[t]);
        else
            take(&s, c, x->m[t], x->e[t] * x->v[t], x->e[t]);
    }
    *before = x->calm ? normal(s) : settle(s, c);
    if (past)
        *past = x->calm ? r : settle(r, c);
}

/* The gradients of one token, and the sums of those of w and u. */
typedef struct { lanes w, u, k, v; } Gradients;

/* `future` is what r brings from the tokens after this one. A pair of tokens that are n + 1 apart decays n times, once
 * for every token between: so what lies before a token meets there what r brings from after it, and vice versa. */
INLINE void gradients(const Tile *x, const Channels *c, int t, Side future, Gradients *d)
{
    Side before = x->before[t], after = x->after[t], past = x->past[t];
    lanes e = x->e[t], v = x->v[t], y = x->y[t], own, first, last;
    if (x->calm) {
        own = c->calm_bonus * x->r[t];
        first = last = c->calm_fade;
    } else {
        first = c->fade * power_or_0(after.m + past.m + c->fade_m);
        last = c->fade * power_or_0(before.m + future.m + c->fade_m);
    }
    d->w -= last * (before.a * future.a - before.b * future.b) + first * (after.a * past.a - after.b * past.b);
    if (!x->calm) {
        own = c->bonus * power_or_0(c->bonus_m + x->m[t] - x->q[t]) * x->r[t];
        past = at_scale(past, -x->m[t]);
        future = at_scale(future, -x->m[t]);
    }
    d->v = e * (past.a + future.a + own);
    d->k = v * d->v - e * (past.b + future.b + own * y);
    d->u += e * own * (v - y);
}

/* What r brings from after the segment to the same for the one before it; writes the gradients of keys and values. */
INLINE Side sum_gradients(Tile *x, const Channels *c, Side future, int n, long C, float *gk, float *gv, Gradients *sum)
{
    Gradients d = {0};
    Side s = x->calm ? at_scale(future, -x->top) : future, earlier = s;
    for (int t = x->length - 1; t >= 0; t--) {
        lanes r = x->r[t], ry = r * x->y[t];
        gradients(x, c, t, s, &d);
        if (x->calm)
            add(&s, &earlier, c, r, ry);
        else
            take(&s, c, -x->q[t], r, ry);
        put(n, d.k, gk + t * C);
        put(n, d.v, gv + t * C);
    }
    sum->w += d.w;
    sum->u += d.u;
    return x->calm ? s : settle(s, c);
}

/* What lies around a segment of a group, and what r brings from before it. */
typedef struct { Side before, after, past; } Ends;

/* One sequence, or a block of its channels; g and what starts with g are of the backward pass. */
typedef struct {
    long T, C;
    const float *w, *u, *k, *v, *g;
    float *y, *gw, *gu, *gk, *gv;
} Block;

/* What a thread works with: for each group of a block its channels, and what lies before and after the segment. */
typedef struct {
    Channels channels[MAX_GROUPS];
    Side before[MAX_GROUPS], after[MAX_GROUPS], past[MAX_GROUPS], future[MAX_GROUPS];
    Gradients sum[MAX_GROUPS];
    Ends *ends;
} Desk;

/* `ahead` is the direction in which the next segments lie. */
INLINE void load(Tile *x, const Block *b, int n, long segment, int group, int ahead)
{
    long left = b->T - segment * SEGMENT, at = segment * SEGMENT * b->C + group * LANES;
    long soon = ahead * 2 * SEGMENT * b->C;
    x->length = left < SEGMENT ? (int)left : SEGMENT;
    x->high = x->low = fetch(n, b->k + at);
    for (int t = 0; t < x->length; t++, at += b->C) {
        __builtin_prefetch(b->k + at + soon);
        __builtin_prefetch(b->v + at + soon);
        x->k[t] = fetch(n, b->k + at);
        x->v[t] = fetch(n, b->v + at);
        if (b->g)
            x->g[t] = fetch(n, b->g + at);
        x->high = larger(x->k[t], x->high);
        x->low = smaller(x->k[t], x->low);
    }
}

/* One segment of a group in the first pass, on the way from the first token to the last, and, for gradients, back. */
enum pass { AHEAD, FORWARD, KEEP, BACK };

INLINE void visit(enum pass pass, int n, const Block *b, Desk *desk, long segment, int group, int groups)
{
    const Channels own = desk->channels[group], *c = &own; /* local: outputs in memory cannot lie on top of it */
    Ends *end = desk->ends + segment * groups + group;
    Tile tile, *x = &tile;
    long at = segment * SEGMENT * b->C + group * LANES;
    load(x, b, n, segment, group, pass == AHEAD || pass == BACK ? -1 : 1);
    if (pass == AHEAD) {
        end->after = desk->after[group];
        scale(x, c, end->after.m);
        desk->after[group] = sum_after(x, c, end->after, 0);
        return;
    }
    Side *before = desk->before + group, *past = pass == FORWARD ? NULL : desk->past + group;
    if (pass == KEEP) {
        end->before = *before;
        end->past = *past;
    }
    if (pass == BACK) {
        *before = end->before;
        *past = end->past;
    }
    scale(x, c, higher(before->m, end->after.m));
    sum_after(x, c, end->after, 1);
    sum_before(x, c, before, past, n, b->y + at, b->C);
    if (pass == BACK)
        desk->future[group] =
            sum_gradients(x, c, desk->future[group], n, b->C, b->gk + at, b->gv + at, desk->sum + group);
}

INLINE void walk(enum pass pass, long channels, const Block *b, Desk *desk)
{
    long segments = (b->T + SEGMENT - 1) / SEGMENT;
    int groups = (int)((channels + LANES - 1) / LANES);
    for (long step = 0; step < segments; step++) {
        long segment = pass == AHEAD || pass == BACK ? segments - 1 - step : step;
        for (int group = 0; group < groups; group++)
            if (channels - group * LANES >= LANES)
                visit(pass, LANES, b, desk, segment, group, groups);
            else
                visit(pass, (int)(channels - group * LANES), b, desk, segment, group, groups);
    }
}

static void run_block(long channels, const Block *b, Desk *desk)
{
    for (int group = 0; group * LANES < channels; group++) {
        int n = channels - group * LANES < LANES ? (int)(channels - group * LANES) : LANES;
        desk->channels[group] = channels_of(n, b->w + group * LANES, b->u + group * LANES);
        desk->before[group] = desk->after[group] = desk->past[group] = desk->future[group] = empty();
        desk->sum[group] = (Gradients){0};
    }
    walk(AHEAD, channels, b, desk);
    if (!b->g) {
        walk(FORWARD, channels, b, desk);
        return;
    }
    walk(KEEP, channels, b, desk);
    walk(BACK, channels, b, desk);
    for (long c = 0; c < channels; c++) {
        b->gw[c] = desk->sum[c / LANES].w[c % LANES];
        b->gu[c] = desk->sum[c / LANES].u[c % LANES];
    }
}

/* Sums that fade to nothing must not fade slowly: a processor takes a hundred times longer for subnormal numbers. */
INLINE unsigned flush_subnormals(void)
{
#if defined(__SSE__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
#else
    return 0;
#endif
}

INLINE void restore(unsigned before)
{
#if defined(__SSE__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

/* How many channels a block has: all, or, for several threads, so few that each thread gets some blocks, and for short
 * sequences so few that keys, values and outputs stay in the cache between two passes. */
static long block_width(long B, long T, long C, int threads)
{
    long groups = (C + LANES - 1) / LANES, parts = threads == 1 ? 1 : (4L * threads + B - 1) / B;
    long wide = (groups + parts - 1) / parts, cached = CACHE / (3 * (long)sizeof(lanes) * T);
    if (cached >= MIN_GROUPS && wide > cached)
        wide = cached;
    return LANES * (wide < MIN_GROUPS ? MIN_GROUPS : wide > MAX_GROUPS ? MAX_GROUPS : wide);
}

static int run(long B, const Block *all)
{
    long T = all->T, C = all->C, segments = (T + SEGMENT - 1) / SEGMENT;
    int failed = 0;
    if (B == 0 || T == 0 || C == 0)
        return 0;
#pragma omp parallel
    {
        int threads = 1;
#if defined(_OPENMP)
        threads = omp_get_num_threads();
#endif
        unsigned mode = flush_subnormals();
        long width = block_width(B, T, C, threads), groups = width / LANES;
        Desk desk = {.ends = aligned_alloc(sizeof(lanes), sizeof(Ends) * (size_t)(groups * segments))};
        if (!desk.ends) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
        for (long batch = 0; batch < B; batch++)
            for (long c = 0; c < C; c += width) {
                long at = batch * T * C + c, row = batch * C + c;
                Block b = {.T = T, .C = C, .w = all->w + c, .u = all->u + c, .k = all->k + at, .v = all->v + at};
                if (all->g) {
                    b.g = all->g + at;
                    b.gk = all->gk + at;
                    b.gv = all->gv + at;
                    b.gw = all->gw + row;
                    b.gu = all->gu + row;
                } else
                    b.y = all->y + at;
                if (!failed)
                    run_block(C - c < width ? C - c : width, &b, &desk);
            }
        free(desk.ends);
        restore(mode);
    }
    return failed;
}

/* w, u (C); k, v, y (B, T, C). Returns 0, or 1 when there is no memory left. */
int biwkv_forward(long B, long T, long C, const float *w, const float *u, const float *k, const float *v, float *y)
{
    return run(B, &(Block){.T = T, .C = C, .w = w, .u = u, .k = k, .v = v, .y = y});
}

/* g (B, T, C), the gradient of y; gw, gu (B, C), gk, gv (B, T, C) are written. Returns as above. */
int biwkv_backward(long B, long T, long C, const float *w, const float *u, const float *k, const float *v,
                   const float *g, float *gw, float *gu, float *gk, float *gv)
{
    Block all = {.T = T, .C = C, .w = w, .u = u, .k = k, .v = v, .g = g, .gw = gw, .gu = gu, .gk = gk, .gv = gv};
    return run(B, &all);
}
