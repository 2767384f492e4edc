/* Which of the library's levels the processor runs, and the system lets it, and which sources the library is of;
   compiled once, for any processor. */

/* Lowest first. */
const char *facerwkv_levels(void)
{
#if defined(LEVELS)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")))
        return "baseline";
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
          && __builtin_cpu_supports("bmi2")))
        return "baseline v2";
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd")
          && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")))
        return "baseline v2 v3";
    return "baseline v2 v3 v4";
#else
    return "plain";
#endif
}

#ifndef SOURCES
#define SOURCES ""
#endif
/* sources.py's digest of the sources when they were compiled; "" where it was not said. */
const char *facerwkv_sources(void)
{
    return SOURCES;
}

/* Whether the loops run in several threads. */
int facerwkv_threaded(void)
{
#if defined(_OPENMP)
    return 1;
#else
    return 0;
#endif
}
