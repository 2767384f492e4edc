// Image → face boxes: what FaceDetector in facerwkv/media/faces.py does, and the decoding of OpenCV's FaceDetectorYN.

import { Tensor } from "./ort.wasm.min.mjs";
import { blockMeans, resizeLinear, roundHalfEven } from "./resize.js";

const STRIDES = [8, 16, 32];
const DIVISOR = 32; // YuNet takes images whose sides are multiples of it

/** Faces { box, score, eyes }, by rows: x1 y1 x2 y2 in whole pixels, and [x, y] of the right and the left eye. */
export async function findFaces(image, session, settings) {
  const found = [];
  let smaller = image;
  for (const side of searchSides(image, settings)) {
    smaller = resized(smaller, side);
    const [right, down] = [image.width / smaller.width, image.height / smaller.height];
    for (const { x, y, w, h, score, eyes } of await search(smaller, session, settings)) {
      const placed = eyes.map(([across, along]) => [across * right, along * down]);
      found.push({ x: x * right, y: y * down, w: w * right, h: h * down, score, eyes: placed });
    }
  }
  const clipped = strongest(found, (a, b) => overlap(a, b) < settings.overlap).map((face) => clip(face, image));
  const visible = clipped.filter(({ box: [x1, y1, x2, y2] }) => Math.min(x2 - x1, y2 - y1) >= 1);
  return byRows(visible).map(({ box: [x1, y1, x2, y2], ...face }) => {
    return { box: [Math.floor(x1), Math.floor(y1), Math.ceil(x2), Math.ceil(y2)], ...face };
  });
}

/** As by_rows in media/geometry.py: rows from the top, in a row from the left. */
function byRows(faces) {
  const middle = ({ box }) => (box[1] + box[3]) / 2;
  const rows = [];
  for (const face of [...faces].sort((a, b) => middle(a) - middle(b))) {
    if (!rows.length || middle(face) >= rows.at(-1)[0].box[3]) rows.push([]);
    rows.at(-1).push(face);
  }
  return rows.flatMap((row) => row.sort((a, b) => a.box[0] - b.box[0]));
}

/** The lengths of the longer side at which the image is searched. */
function searchSides({ width, height }, { smallest_side, max_side, one_search, coarse_side }) {
  const side = Math.min(Math.max(height, width, smallest_side), max_side);
  return side > one_search ? [side, coarse_side] : [side];
}

function resized(image, side) {
  const lengths = [image.width, image.height];
  const [width, height] = lengths.map((length) => Math.max(1, roundHalfEven((length * side) / Math.max(...lengths))));
  let block;
  while ((block = Math.min(Math.floor(Math.max(image.width, image.height) / side), image.width, image.height)) > 1) {
    image = blockMeans(image, block === 3 ? 3 : 2);
  }
  return resizeLinear(image, width, height);
}

/** Faces { x, y, w, h, score, eyes } in the image's pixels. */
async function search(image, session, settings) {
  const [width, height] = [padded(image.width), padded(image.height)];
  const pixels = new Tensor("uint8", padTo(image, width, height), [1, height, width, 3]);
  const { faces } = await session.run({ images: pixels });
  const found = decode(faces, width, height, settings.score_threshold);
  return strongest(found, (a, b) => overlap(truncated(a), truncated(b)) <= settings.overlap);
}

function padded(length) {
  return Math.ceil(length / DIVISOR) * DIVISOR;
}

/** Red, green and blue of each pixel, with zeros to the right and below. */
function padTo({ width, height, data }, padWidth, padHeight) {
  const result = new Uint8Array(padWidth * padHeight * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0, from = y * width * 4, to = y * padWidth * 3; x < width; x++, from += 4, to += 3) {
      result[to] = data[from];
      result[to + 1] = data[from + 1];
      result[to + 2] = data[from + 2];
    }
  }
  return result;
}

/** A cell's numbers are its two shares' logits, box and landmarks; the cells are those of each stride, row by row. */
function decode({ data, dims }, width, height, threshold) {
  const cells = dims[2];
  const share = (logit) => 1 / (1 + Math.exp(-logit));
  const faces = [];
  let start = 0;
  for (const stride of STRIDES) {
    const columns = width / stride;
    const count = columns * (height / stride);
    for (let i = 0; i < count; i++) {
      const [cls, obj, dx, dy, logWidth, logHeight] = [0, 1, 2, 3, 4, 5].map((row) => data[row * cells + start + i]);
      const score = Math.sqrt(share(cls) * share(obj));
      if (score <= threshold) continue;
      const [w, h] = [Math.exp(logWidth) * stride, Math.exp(logHeight) * stride];
      const place = (across, along) => [((i % columns) + across) * stride, (Math.floor(i / columns) + along) * stride];
      const [x, y] = place(dx, dy);
      const eyes = [6, 8].map((row) => place(...[row, row + 1].map((each) => data[each * cells + start + i])));
      faces.push({ x: x - w / 2, y: y - h / 2, w, h, score, eyes });
    }
    start += count;
  }
  return faces;
}

/** The faces by their score, without those that do not fit beside a stronger one. */
function strongest(faces, fits) {
  const kept = [];
  for (const face of [...faces].sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => fits(face, other))) kept.push(face);
  }
  return kept;
}

/** OpenCV compares boxes in whole pixels. */
function truncated({ x, y, w, h }) {
  return { x: Math.trunc(x), y: Math.trunc(y), w: Math.trunc(w), h: Math.trunc(h) };
}

/** Intersection over union. */
function overlap(a, b) {
  const width = Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y);
  const common = Math.max(width, 0) * Math.max(height, 0);
  return common / (a.w * a.h + b.w * b.h - common);
}

function clip({ x, y, w, h, score, eyes }, { width, height }) {
  return { box: [Math.max(x, 0), Math.max(y, 0), Math.min(x + w, width), Math.min(y + h, height)], score, eyes };
}
