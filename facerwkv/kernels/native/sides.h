/* Sums over what lies on one side of a token, which fade with every token.
 *
 * A sum is a * 2^m with a whole m: so sums of any size are brought to one scale without rounding. What calm and wild
 * mean stands in wkv.c.
 */
#ifndef FACERWKV_SIDES_H
#define FACERWKV_SIDES_H

#include "lanes.h"

#define SEGMENT 16 /* tokens that are handled at once */
#define MAX_BONUS 10.0f /* larger ones, and decays that grow by more than e^5 in a segment, are never calm */
#define MAX_GROWTH (5.0f / SEGMENT)
#define MAX_KEY 1e6f /* beyond any float's exponential; keys and states' exponents are cut there */
#define MAX_LOG 1e4f /* of a decay or a bonus: likewise */
#define EMPTY (-(1 << 28))
#if defined(__FMA__) || defined(__aarch64__)
#define FUSED 1 /* a product and a sum are rounded once */
#else
#define FUSED 0
#endif

typedef double doubles __attribute__((vector_size(8 * LANES)));

/* What lies on one side of a token: a 2^m and b 2^m. */
typedef struct { lanes a, b; whole m; } Side;

/* e^-w = (fade + rest) 2^fade_m, as one number would err more with every token; e^u = bonus 2^bonus_m. In a segment
 * fade alone shrinks sums by about 2^drift. Those for calm segments hold their power of two. Where products are rounded
 * before they are added, rest would be lost in that of fade: there e^-w = (1 + change) scale. */
typedef struct {
    lanes fade, rest, bonus, calm_fade, calm_rest, calm_bonus, change, scale;
    whole fade_m, bonus_m, drift;
    int calm;
} Channels;

/* x between -limit and limit; NaN stays NaN. */
INLINE lanes cut(lanes x, float limit)
{
    return blend(x == x, larger(smaller(x, ONE * limit), ONE * -limit), x);
}

/* e^x / 2^m in double precision, m near x / ln 2. */
INLINE doubles exact_fraction(lanes x, whole m)
{
    doubles r = __builtin_convertvector(x, doubles) - __builtin_convertvector(m, doubles) * 0.6931471805599453;
    doubles sum = (doubles){0} + 1.0;
    for (int i = 10; i > 0; i--)
        sum = sum * r / (double)i + 1.0;
    return sum;
}

INLINE Channels channels_of(int n, const float *w, const float *u)
{
    Channels x;
    lanes rates = fetch(n, w), bonuses = fetch(n, u), log_fade = cut(-rates, MAX_LOG), log_bonus = cut(bonuses, MAX_LOG);
    x.fade_m = exponent(log_fade) & (rates == rates);
    x.bonus_m = exponent(log_bonus) & (bonuses == bonuses);
    doubles exact = exact_fraction(log_fade, x.fade_m);
    x.fade = __builtin_convertvector(exact, lanes);
    x.rest = __builtin_convertvector(exact - __builtin_convertvector(x.fade, doubles), lanes);
    x.bonus = fraction(log_bonus, x.bonus_m);
    lanes drift = SEGMENT * (log_fade * 1.44269504f - __builtin_convertvector(x.fade_m, lanes));
    x.drift = __builtin_convertvector(blend(rates == rates, drift, (lanes){0}), whole);
    x.calm = all((rates >= -MAX_GROWTH) & (magnitude(bonuses) <= MAX_BONUS));
    x.change = __builtin_convertvector(exact - 1.0, lanes);
    x.scale = power_or_0(x.fade_m);
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

/* The same with b between 1 and 2, where it is not 0. */
INLINE Side normal(Side s)
{
    whole up = ((whole)s.b >> 23) - 127;
    lanes factor = power(-up);
    return (Side){s.a * factor, s.b * factor, s.m + up};
}

/* x e^-w / 2^fade_m. */
INLINE lanes shrunk(lanes x, const Channels *c)
{
#if FUSED
    return c->fade * x + c->rest * x;
#else
    return x + c->change * x;
#endif
}

/* Calm: fade by one w, then add (x, y). The rest is taken of the sums one token earlier, which are ready earlier: so a
 * number misses it once, not once a token. */
INLINE void add(Side *s, Side *earlier, const Channels *c, lanes x, lanes y)
{
    Side now = *s;
#if FUSED
    s->a = c->calm_fade * now.a + (c->calm_rest * earlier->a + x);
    s->b = c->calm_fade * now.b + (c->calm_rest * earlier->b + y);
#else
    s->a = c->scale * shrunk(now.a, c) + x;
    s->b = c->scale * shrunk(now.b, c) + y;
#endif
    *earlier = now;
}

/* Wild: fade by one w, then add (x, y) 2^m. */
INLINE void take(Side *s, const Channels *c, whole m, lanes x, lanes y)
{
    whole faded = higher(s->m + c->fade_m, (whole){0} + EMPTY), top = higher(faded, m);
    lanes past = power_or_0(faded - top), present = power_or_0(m - top);
    s->a = past * shrunk(s->a, c) + present * x;
    s->b = past * shrunk(s->b, c) + present * y;
    s->m = top;
}

/* The end of a wild segment. */
INLINE Side settle(Side s, const Channels *c)
{
    lanes factor = power(-c->drift);
    return (Side){s.a * factor, s.b * factor, s.m + c->drift};
}

/* A state in memory is (a, b, p), for a e^p and b e^p, C apart. */
INLINE Side fetch_state(int n, const float *from, long C)
{
    lanes p = cut(fetch(n, from + 2 * C), MAX_KEY);
    whole m = exponent(p);
    lanes factor = fraction(p, m);
    return (Side){fetch(n, from) * factor, fetch(n, from + C) * factor, m};
}

/* p is rounded: what fetch_state will make of it is divided out, or a state that is fetched often would drift. */
INLINE void put_state(int n, Side s, float *to, long C)
{
    s = normal(s);
    lanes p = cut(__builtin_convertvector(s.m, lanes) * 0.69314718f, MAX_KEY), factor = fraction(p, exponent(p));
    put(n, s.a / factor, to);
    put(n, s.b / factor, to + C);
    put(n, p, to + 2 * C);
}

#endif
