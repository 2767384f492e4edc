// A face that is turned in the image plane → upright: what facerwkv/media/upright.py does.

import { findFaces } from "./faces.js";

const FRACTIONS = 32; // of a pixel, to which OpenCV's warpAffine rounds

/** Degrees by which a face { box, score, eyes } is turned clockwise in the image. */
export async function rollOf(image, { box, score, eyes: [right, left] }, session, settings) {
  const { sure, margin, tilted } = settings.upright;
  let [likeliest, best] = [0, score + margin];
  for (const degrees of score < sure ? [90, 180, 270] : []) {
    const faces = await findFaces(upright(image, box, degrees).image, session, settings);
    const highest = Math.max(0, ...faces.map((face) => face.score));
    if (highest > best) [likeliest, best] = [degrees, highest];
  }
  const tilt = (Math.atan2(left[1] - right[1], left[0] - right[0]) * 180) / Math.PI;
  return likeliest || (Math.abs(tilt) > tilted ? tilt : 0);
}

/** What is around a box, turned back about its centre, and the box in it: { image, box }. */
export function upright(image, [x1, y1, x2, y2], degrees) {
  const side = Math.ceil(2 * Math.max(x2 - x1, y2 - y1));
  const [cosine, sine] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  const rounded = (at) => Math.round(at * FRACTIONS) / FRACTIONS;
  const data = new Uint8Array(side * side * 4);
  for (let y = 0, to = 0; y < side; y++) {
    for (let x = 0; x < side; x++, to += 4) {
      const [across, along] = [x - (side - 1) / 2, y - (side - 1) / 2];
      const from = [(x1 + x2 - 1) / 2 + cosine * across - sine * along, (y1 + y2 - 1) / 2 + sine * across + cosine * along];
      mix(image, ...from.map(rounded), data, to);
    }
  }
  const [left, top] = [(side - (x2 - x1)) / 2, (side - (y2 - y1)) / 2];
  return { image: { width: side, height: side, data }, box: [left, top, left + x2 - x1, top + y2 - y1] };
}

/** The colour between four pixels; beyond the image those of its border are repeated. */
function mix({ width, height, data }, x, y, result, to) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [columns, rows] = [[left, left + 1], [top, top + 1]].map((pair, i) => {
    return pair.map((at) => Math.min(Math.max(at, 0), [width, height][i] - 1));
  });
  const [right, down] = [x - left, y - top];
  for (let channel = 0; channel < 4; channel++) {
    const [a, b, c, d] = rows.flatMap((row) => columns.map((column) => data[(row * width + column) * 4 + channel]));
    result[to + channel] = Math.round((a * (1 - right) + b * right) * (1 - down) + (c * (1 - right) + d * right) * down);
  }
}
