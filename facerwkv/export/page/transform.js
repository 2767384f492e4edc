// Image and face → the model's input: what EvalTransform in facerwkv/data/transforms.py does.

import { resizeAntialiased, roundHalfEven } from "./resize.js";

/** Bytes (h, w, channels) for an image and a face's box, x1 y1 x2 y2 in whole pixels; null is the whole image. */
export function toInput(image, box, transform) {
  if (transform.crop !== "both") return sized(box ? cutFace(image, box, transform.margin) : image, transform);
  const scene = sized(blackened(image, box), transform);
  const face = sized(cutFace(image, box, transform.margin), transform);
  return interleaved(scene, face, transform.in_chans);
}

function sized(image, { image_size: [height, width], in_chans: channels }) {
  const { data } = resizeAntialiased(image, width, height);
  const input = new Uint8Array(width * height * channels);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    if (channels === 1) input[to++] = grey(data[from], data[from + 1], data[from + 2]);
    else for (let channel = 0; channel < 3; channel++) input[to++] = data[from + channel];
  }
  return input;
}

/** ITU-R 601 in 65,536ths: Pillow's integers. */
function grey(red, green, blue) {
  return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
}

/** The square around a face's box enlarged by `margin` x its longer side on each side. */
function cutFace(image, [x1, y1, x2, y2], margin) {
  const side = Math.max(1, roundHalfEven(Math.max(x2 - x1, y2 - y1) * (1 + 2 * margin)));
  return cut(image, roundHalfEven((x1 + x2 - side) / 2), roundHalfEven((y1 + y2 - side) / 2), side);
}

/** A square's pixels; beyond the image those of its border are repeated. */
function cut(image, left, top, side) {
  const within = (at, length) => Math.min(Math.max(at, 0), length - 1);
  const source = new Uint32Array(image.data.buffer);
  const result = new Uint32Array(side * side);
  for (let y = 0, to = 0; y < side; y++) {
    const row = within(top + y, image.height) * image.width;
    for (let x = 0; x < side; x++) result[to++] = source[row + within(left + x, image.width)];
  }
  return { width: side, height: side, data: new Uint8Array(result.buffer) };
}

function blackened(image, [x1, y1, x2, y2]) {
  const data = image.data.slice();
  for (let y = y1; y < y2; y++) data.fill(0, (y * image.width + x1) * 4, (y * image.width + x2) * 4);
  return { width: image.width, height: image.height, data };
}

function interleaved(scene, face, channels) {
  const input = new Uint8Array(scene.length * 2);
  for (let from = 0, to = 0; from < scene.length; from += channels, to += 2 * channels) {
    input.set(scene.subarray(from, from + channels), to);
    input.set(face.subarray(from, from + channels), to + channels);
  }
  return input;
}
