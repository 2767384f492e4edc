/* The weighted key-value on the CPU, from one side (RWKV-4) and from both (Vision-RWKV): float32, forward and backward.
 * The formulas stand in kernels/wkv4.py and kernels/biwkv.py.
 *
 * Work is split over (batch, blocks of channels) and goes along the tokens in segments, for one group of LANES channels
 * after the other. From both sides, what lies after a segment is summed up in a first pass from the last token to the
 * first, and kept only at the segments' ends. Long sequences want wide blocks: every row of a narrow one lies on a page
 * of its own.
 *
 * Where the keys of a segment lie within SPREAD powers of two of the largest thing in and around it ("calm"), all its
 * sums share one scale, and a token costs one exponential and a few products; elsewhere ("wild") every sum has its own.
 */
#include <stdint.h>
#include <stdlib.h>
#if defined(_OPENMP)
#include <omp.h>
#endif
#include "sides.h"

#define MIN_GROUPS (64 / LANES) /* a block's; with fewer, rows are shorter than what memory hands over at once */
#define MAX_GROUPS (384 / LANES)
#define CACHE 500000L /* bytes of a second-level cache that hold a block */
#define LARGE 16000000L /* bytes that no second-level cache holds, nor a share of a third-level one */
#define SPREAD 72

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
    x->calm = c->calm && all((x->top - exponent(x->low) <= SPREAD) & (magnitude(x->high) < MAX_KEY));
    for (int t = 0; t < x->length; t++) {
        if (x->calm) {
            whole m = exponent(x->k[t]);
            x->e[t] = fraction(x->k[t], m) * power(m - x->top);
        } else {
            lanes k = cut(x->k[t], MAX_KEY);
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
INLINE lanes mean(int both, Tile *x, const Channels *c, int t, Side before, int gradients)
{
    Side after = x->after[t];
    lanes own = (x->calm ? c->calm_bonus : c->bonus) * x->e[t];
    if (!x->calm) {
        whole m = c->bonus_m + x->m[t], q = higher(before.m, m);
        if (both)
            q = higher(q, after.m);
        before = at_scale(before, q);
        after = at_scale(after, q);
        own *= power_or_0(m - q);
        x->q[t] = q;
    }
    lanes a = before.a + own * x->v[t], b = before.b + own;
    lanes scale = ONE / (both ? b + after.b : b);
    if (gradients)
        x->r[t] = x->g[t] * scale;
    return (both ? a + after.a : a) * scale;
}

/* What comes before the segment to what comes before the next; writes y (past the caches if `large`) or, where there is
 * none to write, keeps all for gradients. `past` matters from both sides only. */
INLINE void sum_before(int both, Tile *x, const Channels *c, Side *before, Side *past, int n, float *y, long C, int large)
{
    Side s = x->calm ? at_scale(*before, x->top) : *before, earlier = s;
    Side r = x->calm ? at_scale(*past, -x->top) : *past, earlier_r = r;
    for (int t = 0; t < x->length; t++) {
        lanes mixed = mean(both, x, c, t, s, y == NULL);
        if (y && large && n == LANES)
            put_past(mixed, y + t * C);
        else if (y)
            put(n, mixed, y + t * C);
        else {
            x->y[t] = mixed;
            x->before[t] = s;
            x->past[t] = r;
            if (both && x->calm)
                add(&r, &earlier_r, c, x->r[t], x->r[t] * mixed);
            else if (both)
                take(&r, c, -x->q[t], x->r[t], x->r[t] * mixed);
        }
        if (x->calm)
            add(&s, &earlier, c, x->e[t] * x->v[t], x->e[t]);
        else
            take(&s, c, x->m[t], x->e[t] * x->v[t], x->e[t]);
    }
    *before = x->calm ? normal(s) : settle(s, c);
    *past = x->calm ? r : settle(r, c);
}

/* The gradients of one token, and the sums of those of w and u. */
typedef struct { lanes w, u, k, v; } Gradients;

/* `future` is what r brings from the tokens after this one. A pair of tokens that are n + 1 apart decays n times, once
 * for every token between: so what lies before a token meets there what r brings from after it, and vice versa. */
INLINE void gradients(int both, const Tile *x, const Channels *c, int t, Side future, Gradients *d)
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
    d->w -= last * (before.a * future.a - before.b * future.b);
    if (both)
        d->w -= first * (after.a * past.a - after.b * past.b);
    if (!x->calm) {
        own = c->bonus * power_or_0(c->bonus_m + x->m[t] - x->q[t]) * x->r[t];
        past = at_scale(past, -x->m[t]);
        future = at_scale(future, -x->m[t]);
    }
    lanes a = future.a + own, b = future.b + own * y;
    d->v = e * (both ? a + past.a : a);
    d->k = v * d->v - e * (both ? b + past.b : b);
    d->u += e * own * (v - y);
}

/* What r brings from after the segment to the same for the one before it; writes the gradients of keys and values. */
INLINE Side sum_gradients(int both, Tile *x, const Channels *c, Side future, int n, long C, float *gk, float *gv,
                          Gradients *sum)
{
    Gradients d = {0};
    Side s = x->calm ? at_scale(future, -x->top) : future, earlier = s;
    for (int t = x->length - 1; t >= 0; t--) {
        lanes r = x->r[t], ry = r * x->y[t];
        gradients(both, x, c, t, s, &d);
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

/* One sequence, or a block of its channels; g and what starts with g are of the backward pass, state of one side; large,
 * whether y goes past the caches. */
typedef struct {
    long T, C;
    int large;
    const float *w, *u, *k, *v, *g;
    float *state, *y, *gw, *gu, *gk, *gv;
} Block;

/* What a thread works with: for each group of a block its channels, and what lies before and after the segment. */
typedef struct {
    Channels channels[MAX_GROUPS];
    Side before[MAX_GROUPS], after[MAX_GROUPS], past[MAX_GROUPS], future[MAX_GROUPS];
    Gradients sum[MAX_GROUPS];
    Ends *ends;
} Desk;

/* `ahead` is the direction in which the next segments lie. Their memory is called for row by row, as it lies, since a
 * processor that sees a row coming fetches more of it by itself. */
INLINE void load(Tile *x, const Block *b, int n, long segment, int group, int groups, int ahead)
{
    long left = b->T - segment * SEGMENT, at = segment * SEGMENT * b->C + group * LANES;
    long soon = (segment + ahead) * SEGMENT * b->C, row = group * SEGMENT / groups, column = group * SEGMENT % groups;
    x->length = left < SEGMENT ? (int)left : SEGMENT;
    x->high = x->low = fetch(n, b->k + at);
    for (int t = 0; t < x->length; t++, at += b->C) {
        long next = soon + row * b->C + column * LANES;
        __builtin_prefetch(b->k + next);
        __builtin_prefetch(b->v + next);
        if (b->y && ahead > 0 && !b->large)
            __builtin_prefetch(b->y + next, 1);
        if (++column == groups) {
            column = 0;
            row++;
        }
        x->k[t] = fetch(n, b->k + at);
        x->v[t] = fetch(n, b->v + at);
        if (b->g)
            x->g[t] = fetch(n, b->g + at);
        x->high = larger(x->k[t], x->high);
        x->low = smaller(x->k[t], x->low);
    }
}

/* One segment of a group: summed up from the last token to the first; then from the first to the last, for y, or to
 * keep what gradients need; and, for them, back. */
enum pass { AHEAD, FORWARD, KEEP, BACK };

INLINE void visit(int both, enum pass pass, int n, const Block *b, Desk *desk, long segment, int group, int groups)
{
    const Channels own = desk->channels[group], *c = &own; /* local: outputs in memory cannot lie on top of it */
    Ends *end = desk->ends + segment * groups + group;
    Tile tile, *x = &tile;
    long at = segment * SEGMENT * b->C + group * LANES;
    Side *before = desk->before + group, *past = desk->past + group, after = empty();
    load(x, b, n, segment, group, groups, pass == AHEAD || pass == BACK ? -1 : 1);
    if (pass == AHEAD) {
        end->after = desk->after[group];
        scale(x, c, end->after.m);
        desk->after[group] = sum_after(x, c, end->after, 0);
        return;
    }
    if (both)
        after = end->after;
    if (pass == KEEP) {
        end->before = *before;
        end->past = *past;
    }
    if (pass == BACK) {
        *before = end->before;
        *past = end->past;
    }
    scale(x, c, both ? higher(before->m, after.m) : before->m);
    if (both)
        sum_after(x, c, after, 1);
    sum_before(both, x, c, before, past, n, pass == FORWARD ? b->y + at : NULL, b->C, b->large);
    if (pass == BACK)
        desk->future[group] =
            sum_gradients(both, x, c, desk->future[group], n, b->C, b->gk + at, b->gv + at, desk->sum + group);
}

INLINE void walk(int both, enum pass pass, long channels, const Block *b, Desk *desk)
{
    long segments = (b->T + SEGMENT - 1) / SEGMENT;
    int groups = (int)((channels + LANES - 1) / LANES);
    for (long step = 0; step < segments; step++) {
        long segment = pass == AHEAD || pass == BACK ? segments - 1 - step : step;
        for (int group = 0; group < groups; group++)
            if (channels - group * LANES >= LANES)
                visit(both, pass, LANES, b, desk, segment, group, groups);
            else
                visit(both, pass, (int)(channels - group * LANES), b, desk, segment, group, groups);
    }
}

INLINE void run_block(int both, long channels, const Block *b, Desk *desk)
{
    for (int group = 0; group * LANES < channels; group++) {
        int at = group * LANES, n = channels - at < LANES ? (int)(channels - at) : LANES;
        desk->channels[group] = channels_of(n, b->w + at, b->u + at);
        desk->before[group] = b->state ? fetch_state(n, b->state + at, b->C) : empty();
        desk->after[group] = desk->past[group] = desk->future[group] = empty();
        desk->sum[group] = (Gradients){0};
    }
    if (both)
        walk(both, AHEAD, channels, b, desk);
    if (!b->g)
        walk(both, FORWARD, channels, b, desk);
    else {
        walk(both, KEEP, channels, b, desk);
        walk(both, BACK, channels, b, desk);
    }
    for (long at = 0; at < channels; at += LANES) {
        int n = channels - at < LANES ? (int)(channels - at) : LANES;
        if (b->state)
            put_state(n, desk->before[at / LANES], b->state + at, b->C);
        if (b->g) {
            put(n, desk->sum[at / LANES].w, b->gw + at);
            put(n, desk->sum[at / LANES].u, b->gu + at);
        }
    }
}

static void run_from_one_side(long channels, const Block *b, Desk *desk) { run_block(0, channels, b, desk); }
static void run_from_both_sides(long channels, const Block *b, Desk *desk) { run_block(1, channels, b, desk); }

/* How many channels a block has: all, or, for several threads, so few that each thread gets some blocks, and for several
 * passes over short sequences so few that keys, values and outputs stay in the cache from one pass to the next. */
static long block_width(int passes, long B, long T, long C, int threads)
{
    long groups = (C + LANES - 1) / LANES, parts = threads == 1 ? 1 : (4L * threads + B - 1) / B;
    long wide = (groups + parts - 1) / parts, cached = CACHE / (3 * (long)sizeof(lanes) * T);
    if (passes > 1 && cached >= MIN_GROUPS && wide > cached)
        wide = cached;
    return LANES * (wide < MIN_GROUPS ? MIN_GROUPS : wide > MAX_GROUPS ? MAX_GROUPS : wide);
}

/* The block from channel c of a sequence on. */
static Block block_at(const Block *all, long batch, long c)
{
#define AT(name, row) (all->name ? all->name + (row) + c : NULL)
    long tokens = batch * all->T * all->C, channels = batch * all->C;
    return (Block){
        .T = all->T, .C = all->C, .large = all->large, .w = AT(w, 0), .u = AT(u, 0), .k = AT(k, tokens), .v = AT(v, tokens),
        .g = AT(g, tokens), .state = AT(state, 3 * channels), .y = AT(y, tokens), .gw = AT(gw, channels),
        .gu = AT(gu, channels), .gk = AT(gk, tokens), .gv = AT(gv, tokens),
    };
#undef AT
}

/* Returns 0, or 1 when there is no memory left. */
static int run(int both, long B, const Block *all)
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
        long width = block_width(both || all->g ? 2 : 1, B, T, C, threads), groups = width / LANES;
        Desk desk = {.ends = aligned_alloc(sizeof(lanes), sizeof(Ends) * (size_t)(groups * segments))};
        if (!desk.ends) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
        for (long batch = 0; batch < B; batch++)
            for (long c = 0; c < C; c += width) {
                long channels = C - c < width ? C - c : width;
                Block b = block_at(all, batch, c);
                if (failed)
                    continue;
                if (both)
                    run_from_both_sides(channels, &b, &desk);
                else
                    run_from_one_side(channels, &b, &desk);
            }
        finish_passing();
        free(desk.ends);
        restore(mode);
    }
    return failed;
}

/* Whether y goes past the caches: when keys, values and outputs do not fit into them. */
static int is_large(long B, long T, long C, const float *y)
{
    return B * T * C * 3 * (long)sizeof(float) > LARGE && C % LANES == 0 && (uintptr_t)y % LINE == 0;
}

/* w, u (C); k, v, y (B, T, C); state (B, 3, C), changed in place. */
int FORM(wkv4_forward)(long B, long T, long C, const float *w, const float *u, const float *k, const float *v,
                       float *state, float *y)
{
    Block all = {.T = T, .C = C, .w = w, .u = u, .k = k, .v = v, .state = state, .y = y, .large = is_large(B, T, C, y)};
    return run(0, B, &all);
}

/* g (B, T, C), the gradient of y, from an empty state; gw, gu (B, C), gk, gv (B, T, C) are written. */
int FORM(wkv4_backward)(long B, long T, long C, const float *w, const float *u, const float *k, const float *v,
                        const float *g, float *gw, float *gu, float *gk, float *gv)
{
    Block all = {.T = T, .C = C, .w = w, .u = u, .k = k, .v = v, .g = g, .gw = gw, .gu = gu, .gk = gk, .gv = gv};
    return run(0, B, &all);
}

/* As above. */
int FORM(biwkv_forward)(long B, long T, long C, const float *w, const float *u, const float *k, const float *v,
                        float *y)
{
    Block all = {.T = T, .C = C, .w = w, .u = u, .k = k, .v = v, .y = y, .large = is_large(B, T, C, y)};
    return run(1, B, &all);
}

int FORM(biwkv_backward)(long B, long T, long C, const float *w, const float *u, const float *k, const float *v,
                         const float *g, float *gw, float *gu, float *gk, float *gv)
{
    Block all = {.T = T, .C = C, .w = w, .u = u, .k = k, .v = v, .g = g, .gw = gw, .gu = gu, .gk = gk, .gv = gv};
    return run(1, B, &all);
}
