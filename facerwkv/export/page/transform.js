// Picture and face → the model's input: what EvalTransform in facerwkv/data/transforms.py does.

import { resizeAntialiased, roundHalfEven } from "./resize.js";

/** Bytes (h, w, channels) for a picture and a face's box, x1 y1 x2 y2 in whole pixels; null is the whole picture. */
export function toInput(picture, box, transform) {
  if (transform.crop !== "both") return sized(box ? cutFace(picture, box, transform.margin) : picture, transform);
  const scene = sized(blackened(picture, box), transform);
  const face = sized(cutFace(picture, box, transform.margin), transform);
  return interleaved(scene, face, transform.in_chans);
}

function sized(picture, { image_size: [height, width], in_chans: channels }) {
  const { data } = resizeAntialiased(picture, width, height);
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
function cutFace(picture, [x1, y1, x2, y2], margin) {
  const side = Math.max(1, roundHalfEven(Math.max(x2 - x1, y2 - y1) * (1 + 2 * margin)));
  return cut(picture, roundHalfEven((x1 + x2 - side) / 2), roundHalfEven((y1 + y2 - side) / 2), side);
}

/** A square's pixels; beyond the picture those of its border are repeated. */
function cut(picture, left, top, side) {
  const within = (at, length) => Math.min(Math.max(at, 0), length - 1);
  const source = new Uint32Array(picture.data.buffer);
  const result = new Uint32Array(side * side);
  for (let y = 0, to = 0; y < side; y++) {
    const row = within(top + y, picture.height) * picture.width;
    for (let x = 0; x < side; x++) result[to++] = source[row + within(left + x, picture.width)];
  }
  return { width: side, height: side, data: new Uint8Array(result.buffer) };
}

function blackened(picture, [x1, y1, x2, y2]) {
  const data = picture.data.slice();
  for (let y = y1; y < y2; y++) data.fill(0, (y * picture.width + x1) * 4, (y * picture.width + x2) * 4);
  return { width: picture.width, height: picture.height, data };
}

function interleaved(scene, face, channels) {
  const input = new Uint8Array(scene.length * 2);
  for (let from = 0, to = 0; from < scene.length; from += channels, to += 2 * channels) {
    input.set(scene.subarray(from, from + channels), to);
    input.set(face.subarray(from, from + channels), to + channels);
  }
  return input;
}
