/* Bytes to numbers by table, and interleaved channels to planes: x (B, pixels, channels) to y (B, channels, pixels). */
#include <stdint.h>
#include "levels.h"

#define BLOCK 4096 /* pixels, whose bytes stay in the first-level cache while each channel is looked up */

void FORM(pixels_forward)(long batch, long pixels, long channels, const uint8_t *x, const float *table, float *y)
{
    long blocks = (pixels + BLOCK - 1) / BLOCK;
#pragma omp parallel for
    for (long i = 0; i < batch * blocks; i++) {
        long picture = i / blocks, start = i % blocks * BLOCK;
        long stop = start + BLOCK < pixels ? start + BLOCK : pixels;
        const uint8_t *from = x + picture * pixels * channels;
        float *to = y + picture * pixels * channels;
        for (long c = 0; c < channels; c++)
            for (long p = start; p < stop; p++)
                to[c * pixels + p] = table[c * 256 + from[p * channels + c]];
    }
}
