// Images of another size, pixel by pixel as PyTorch and OpenCV make them.
// An image is { width, height, data }: RGBA, one byte each, as in ImageData; its alpha is not looked at.
//
// For each position of the result along one axis, the taps are { first, weights }: its share of the source.

/** Python's rounding: a half goes to the even neighbour. */
export function roundHalfEven(x) {
  const up = Math.round(x);
  return Math.abs(x % 1) === 0.5 && up % 2 ? up - 1 : up;
}

/** As torch.nn.functional.interpolate(mode="bilinear", antialias=True) of uint8 does it. */
export function resizeAntialiased(image, width, height) {
  const taps = (length, size) => wholeTaps(triangleTaps(length, size));
  return resize(image, taps(image.width, width), taps(image.height, height), Uint8Array);
}

/** The mean of whole blocks of pixels, as cv2.resize(INTER_AREA) gives it. */
export function blockMeans(image, block) {
  const taps = (length) => Array.from({ length: Math.floor(length / block) }, (_, i) => {
    return { first: i * block, weights: Array(block).fill(1 / block) };
  });
  return resize(image, taps(image.width), taps(image.height), Float32Array);
}

/** As cv2.resize(INTER_LINEAR) does it. */
export function resizeLinear(image, width, height) {
  return resize(image, linearTaps(image.width, width), linearTaps(image.height, height), Float32Array);
}

/** First across, then down; what lies between the two is kept in a `Between`. */
function resize(image, columns, rows, Between) {
  const [width, height] = [columns.length, rows.length];
  if (width === image.width && height === image.height) return image;
  const between = new Between(width * image.height * 4);
  across(image.data, image.width, image.height, columns, between);
  const data = new Uint8Array(width * height * 4);
  down(between, width, rows, data);
  return { width, height, data };
}

function across(source, width, height, columns, result) {
  const half = result instanceof Uint8Array ? 0.5 : 0; // whole numbers are rounded, others kept
  for (let y = 0, to = 0; y < height; y++) {
    for (const { first, weights } of columns) {
      let [red, green, blue] = [half, half, half];
      let from = (y * width + first) * 4;
      for (let i = 0; i < weights.length; i++, from += 4) {
        red += weights[i] * source[from];
        green += weights[i] * source[from + 1];
        blue += weights[i] * source[from + 2];
      }
      result[to++] = red;
      result[to++] = green;
      result[to++] = blue;
      to++;
    }
  }
}

function down(source, width, rows, result) {
  const sums = new Float64Array(width * 4);
  rows.forEach(({ first, weights }, y) => {
    sums.fill(0.5);
    weights.forEach((weight, i) => {
      const from = (first + i) * width * 4;
      for (let x = 0; x < sums.length; x++) sums[x] += weight * source[from + x];
    });
    result.set(sums, y * sums.length);
  });
}

function triangleTaps(length, size) {
  const scale = length / size;
  const support = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = scale * (i + 0.5);
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const count = Math.min(Math.trunc(centre + support + 0.5), length) - first;
    const heights = Array.from({ length: count }, (_, j) => {
      return Math.max(0, 1 - Math.abs((j + first - centre + 0.5) / support));
    });
    const sum = heights.reduce((a, b) => a + b);
    return { first, weights: heights.map((height) => height / sum) };
  });
}

/** Weights in whole 2^-n, the largest in 15 bits: PyTorch computes with integers. */
function wholeTaps(taps) {
  const largest = taps.reduce((most, { weights }) => Math.max(most, ...weights), 0);
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  const whole = (weight) => Math.trunc(0.5 + weight * 2 ** bits) / 2 ** bits;
  return taps.map(({ first, weights }) => ({ first, weights: weights.map(whole) }));
}

function linearTaps(length, size) {
  return Array.from({ length: size }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * length) / size - 0.5, 0), length - 1);
    const first = Math.floor(at);
    return { first, weights: first === length - 1 ? [1] : [1 - (at - first), at - first] };
  });
}
