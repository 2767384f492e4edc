/* RWKV-6's recurrence on the CPU: float32, forward. The formula stands in kernels/wkv6.py.
 *
 * Work is split over (batch, head). A head's state, keys by values, stays in the first-level cache while its tokens pass;
 * for heads of 64 a row's values stand in vector registers.
 */

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define HEAD 64
#define PARTS (HEAD / LANES)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* sum of r u k */
INLINE float bonus_of(int n, const float *r, const float *u, const float *k)
{
    float parts[LANES] = {0}, sum = 0.0f;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            parts[lane] += r[i + lane] * u[i + lane] * k[i + lane];
    for (int lane = 0; lane < LANES; lane++)
        sum += parts[lane];
    for (; i < n; i++)
        sum += r[i] * u[i] * k[i];
    return sum;
}

INLINE void token_64(const float *r, const float *k, const float *v, const float *w, const float *u, float *state,
                     float *y)
{
    float bonus = bonus_of(HEAD, r, u, k);
    vec value[PARTS], sum[PARTS];
    for (int part = 0; part < PARTS; part++) {
        value[part] = *(const vec *)(v + part * LANES);
        sum[part] = bonus * value[part];
    }
    for (int i = 0; i < HEAD; i++) {
        float ri = r[i], wi = w[i], ki = k[i];
        vec *row = (vec *)(state + i * HEAD);
        for (int part = 0; part < PARTS; part++) {
            vec s = row[part];
            sum[part] += ri * s;
            row[part] = wi * s + ki * value[part];
        }
    }
    for (int part = 0; part < PARTS; part++)
        *(vec *)(y + part * LANES) = sum[part];
}

INLINE void token(int n, const float *r, const float *k, const float *v, const float *w, const float *u, float *state,
                  float *y)
{
    float bonus = bonus_of(n, r, u, k);
    for (int j = 0; j < n; j++)
        y[j] = bonus * v[j];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            float s = state[i * n + j];
            y[j] += r[i] * s;
            state[i * n + j] = w[i] * s + k[i] * v[j];
        }
}

/* r, k, v, decays w, y (B, T, H, N); u (H, N); state (B, H, N, N), changed in place. */
void wkv6_forward(long B, long T, long H, long N, const float *r, const float *k, const float *v, const float *w,
                  const float *u, float *state, float *y)
{
#pragma omp parallel for schedule(static)
    for (long head = 0; head < B * H; head++) {
        long h = head % H, at = head / H * T * H * N + h * N;
        float *s = state + head * N * N;
        for (long t = 0; t < T; t++, at += H * N)
            if (N == HEAD)
                token_64(r + at, k + at, v + at, w + at, u + h * N, s, y + at);
            else
                token((int)N, r + at, k + at, v + at, w + at, u + h * N, s, y + at);
    }
}
