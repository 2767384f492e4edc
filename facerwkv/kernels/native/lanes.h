/* What the C kernels share: vectors of LANES floats and their arithmetic, the exponential, subnormal numbers. */
#ifndef FACERWKV_LANES_H
#define FACERWKV_LANES_H

#include "levels.h"
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE__)
#include <xmmintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

/* As many numbers as a register holds: compilers keep wider vectors in memory. */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int whole __attribute__((vector_size(4 * LANES)));
typedef float memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* lanes at any address */
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* to[i] = from[step i] for i < n and i < 4. Left to themselves, compilers transpose with gathers and scatters. */
INLINE void pick(long n, long step, const float *from, float *to)
{
    if (n >= 4)
        *(four *)to = (four){from[0], from[step], from[2 * step], from[3 * step]};
    else
        for (long i = 0; i < n; i++)
            to[i] = from[i * step];
}

#define ONE ((lanes){0} + 1.0f)

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

#define ROUNDING 12582912.0f /* 1.5 * 2^23: in sums with it, a number's whole part is left in the low bits */

/* The m nearest to x / ln 2. */
INLINE whole exponent(lanes x)
{
    return (whole)(x * 1.44269504f + ROUNDING) - 0x4b400000;
}

/* e^x = POLYNOMIAL(r) 2^n with r = REMAINDER(x, n) and n near x / ln 2: relative error below 2e-7; NaN stays NaN. Cody
 * and Waite's reduction. */
#define REMAINDER(x, n) ((x) - (n) * 0.693359375f + (n) * 2.12194440e-4f)
#define POLYNOMIAL(r) \
    ((((((r * 1.9875691500e-4f + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r \
       + 1.6666665459e-1f) * r + 5.0000001201e-1f) * (r * r) + r + 1.0f)

/* e^x / 2^m with m = exponent(x). */
INLINE lanes fraction(lanes x, whole m)
{
    lanes n = __builtin_convertvector(m, lanes), r = REMAINDER(x, n);
    return POLYNOMIAL(r);
}

/* e^x for x cut to low..high, which lies within -87..40; the compiler turns a loop of these into vector code. */
INLINE float exp_within(float low, float high, float x)
{
    union { int i; float f; } two;
    x = x < low ? low : x > high ? high : x;
    float n = (x * 1.44269504f + ROUNDING) - ROUNDING, r = REMAINDER(x, n); /* the baseline would call nearbyintf */
    two.i = (int)((unsigned)((int)n + 127) << 23); /* of NaN, any number: the polynomial is NaN */
    return POLYNOMIAL(r) * two.f;
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

/* Whole vectors to memory past the caches, for outputs that are larger than these: memory is not read before it is
 * written. Their address is a multiple of LINE; `finish_passing` comes before another thread reads them. */
#define LINE 64

INLINE void put_past(lanes x, float *to)
{
#if defined(__AVX512F__)
    _mm512_stream_ps(to, (__m512)x);
#elif defined(__AVX__)
    _mm256_stream_ps(to, (__m256)x);
#elif defined(__SSE__)
    _mm_stream_ps(to, (__m128)x);
#else
    *(memory *)to = x;
#endif
}

INLINE void finish_passing(void)
{
#if defined(__SSE__)
    _mm_sfence();
#endif
}

/* Sums that fade to nothing must not fade slowly: a processor takes a hundred times longer for subnormal numbers. On
 * x86 they count as 0 between these two calls. */
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

#endif
