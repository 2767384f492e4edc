// Image → face boxes: what FaceDetector in facerwkv/media/faces.py does, and OpenCV's FaceDetectorYN below it.

import { Tensor } from "./ort.wasm.min.mjs";
import { resizeArea, resizeLinear, roundHalfEven } from "./resize.js";

const STRIDES = [8, 16, 32];
const DIVISOR = 32; // YuNet takes images whose sides are multiples of it

/** Boxes x1 y1 x2 y2 in whole pixels with their scores, from left to right. A face is { box, score }. */
export async function findFaces(image, session, settings) {
  const found = [];
  for (const side of searchSides(image, settings)) found.push(...(await search(image, side, session, settings)));
  const clipped = strongest(found, (a, b) => overlap(a, b) < settings.overlap).map((face) => clip(face, image));
  const visible = clipped.filter(([x1, y1, x2, y2]) => Math.min(x2 - x1, y2 - y1) >= 1);
  return visible.sort((a, b) => a[0] - b[0]).map(([x1, y1, x2, y2, score]) => {
    return { box: [Math.floor(x1), Math.floor(y1), Math.ceil(x2), Math.ceil(y2)], score };
  });
}

/** The lengths of the longer side at which the image is searched. */
function searchSides({ width, height }, { smallest_side, max_side, coarse_side }) {
  const side = Math.min(Math.max(height, width, smallest_side), max_side);
  return side > 1.5 * coarse_side ? [side, coarse_side] : [side];
}

/** Faces { x, y, w, h, score } in the image's pixels. */
async function search(image, side, session, settings) {
  const scale = side / Math.max(image.width, image.height);
  const [width, height] = [image.width, image.height].map((length) => Math.max(1, roundHalfEven(length * scale)));
  const small = (scale < 1 ? resizeArea : resizeLinear)(image, width, height);
  const [padWidth, padHeight] = [width, height].map((length) => padded(Math.max(length, settings.narrowest)));
  const pixels = new Tensor("float32", planes(small, padWidth, padHeight), [1, 3, padHeight, padWidth]);
  const names = STRIDES.flatMap((stride) => ["cls", "obj", "bbox"].map((name) => `${name}_${stride}`));
  const outputs = await session.run({ input: pixels }, names);
  const faces = STRIDES.flatMap((stride) => decode(outputs, stride, padWidth / stride, settings.score_threshold));
  const [right, down] = [image.width / width, image.height / height];
  return strongest(faces, (a, b) => overlap(truncated(a), truncated(b)) <= settings.overlap).map((face) => {
    return { x: face.x * right, y: face.y * down, w: face.w * right, h: face.h * down, score: face.score };
  });
}

function padded(length) {
  return Math.ceil(length / DIVISOR) * DIVISOR;
}

/** Blue, green and red one after the other, with zeros to the right and below. */
function planes({ width, height, data }, padWidth, padHeight) {
  const result = new Float32Array(3 * padWidth * padHeight);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < height; y++) {
      const to = (channel * padHeight + y) * padWidth;
      for (let x = 0; x < width; x++) result[to + x] = data[(y * width + x) * 4 + 2 - channel];
    }
  }
  return result;
}

function decode(outputs, stride, columns, threshold) {
  const [cls, obj, bbox] = ["cls", "obj", "bbox"].map((name) => outputs[`${name}_${stride}`].data);
  const share = (value) => Math.min(Math.max(value, 0), 1);
  const faces = [];
  for (let i = 0; i < cls.length; i++) {
    const score = Math.sqrt(share(cls[i]) * share(obj[i]));
    if (score <= threshold) continue;
    const [dx, dy, logWidth, logHeight] = bbox.subarray(4 * i, 4 * i + 4);
    const [w, h] = [Math.exp(logWidth) * stride, Math.exp(logHeight) * stride];
    const [x, y] = [(i % columns) + dx, Math.floor(i / columns) + dy].map((at) => at * stride);
    faces.push({ x: x - w / 2, y: y - h / 2, w, h, score });
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

function clip({ x, y, w, h, score }, { width, height }) {
  return [Math.max(x, 0), Math.max(y, 0), Math.min(x + w, width), Math.min(y + h, height), score];
}
