/* RWKV-7's recurrence on the CPU: float32, forward. The formula stands in kernels/wkv7.py.
 *
 * Work is split over (batch, head), as in wkv6.c.
 */
#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define HEAD 64
#define PARTS (HEAD / LANES)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE void token_64(const float *r, const float *w, const float *k, const float *v, const float *a, const float *b,
                     float *state, float *y)
{
    vec value[PARTS], read[PARTS] = {0}, sum[PARTS] = {0};
    vec *row = (vec *)state;
    for (int i = 0; i < HEAD; i++, row += PARTS)
        for (int part = 0; part < PARTS; part++)
            read[part] += a[i] * row[part];
    for (int part = 0; part < PARTS; part++)
        value[part] = *(const vec *)(v + part * LANES);
    row = (vec *)state;
    for (int i = 0; i < HEAD; i++, row += PARTS) {
        float ri = r[i], wi = w[i], ki = k[i], bi = b[i];
        for (int part = 0; part < PARTS; part++) {
            vec s = wi * row[part] + bi * read[part] + ki * value[part];
            sum[part] += ri * s;
            row[part] = s;
        }
    }
    for (int part = 0; part < PARTS; part++)
        *(vec *)(y + part * LANES) = sum[part];
}

INLINE void token(int n, const float *r, const float *w, const float *k, const float *v, const float *a, const float *b,
                  float *state, float *y)
{
    for (int j = 0; j < n; j++) {
        float read = 0.0f, sum = 0.0f;
        for (int i = 0; i < n; i++)
            read += a[i] * state[i * n + j];
        for (int i = 0; i < n; i++) {
            float after = w[i] * state[i * n + j] + b[i] * read + k[i] * v[j];
            sum += r[i] * after;
            state[i * n + j] = after;
        }
        y[j] = sum;
    }
}

/* r, decays w, k, v, a, b, y (B, T, H, N); state (B, H, N, N), changed in place. */
void wkv7_forward(long B, long T, long H, long N, const float *r, const float *w, const float *k, const float *v,
                  const float *a, const float *b, float *state, float *y)
{
#pragma omp parallel for schedule(static)
    for (long head = 0; head < B * H; head++) {
        long at = head / H * T * H * N + head % H * N;
        float *s = state + head * N * N;
        for (long t = 0; t < T; t++, at += H * N)
            if (N == HEAD)
                token_64(r + at, w + at, k + at, v + at, a + at, b + at, s, y + at);
            else
                token((int)N, r + at, w + at, k + at, v + at, a + at, b + at, s, y + at);
    }
}
