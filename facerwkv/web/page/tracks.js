// Faces over time: tracks, smoothing, chips, and the stack of probabilities.

import { colourOf } from "./draw.js";
import { create } from "./elements.js";

export const WHOLE = 0; // the track of what has no face's box

export const nameOf = (number) => (number === WHOLE ? "Whole image" : `Face ${number}`);

/** The faces of a video, the longest visible first: number, points {time, probs in the labels' order, unsure}, and
 * `best` {time, box}, where it is largest. */
export function tracksOf(results, labels) {
  const tracks = new Map();
  for (const { time, faces } of results) {
    for (const face of faces) {
      const number = face.track ?? WHOLE;
      if (!tracks.has(number)) tracks.set(number, { number, points: [], best: { time, box: face.box } });
      const track = tracks.get(number);
      track.points.push({ time, probs: labels.map((label) => face.probs[label]), unsure: face.unsure });
      if (area(face) > area(track.best)) track.best = { time, box: face.box };
    }
  }
  return [...tracks.values()].sort((a, b) => b.points.length - a.points.length || a.number - b.number);
}

/** Exponential smoothing of one track: `amount` of what was before stays, 0 to below 1. */
export class Exponential {
  next(probs, amount) {
    this.mean = this.mean ? this.mean.map((before, i) => before + (1 - amount) * (probs[i] - before)) : probs;
    return this.mean;
  }
}

export const area = ({ box }) => (box ? (box[2] - box[0]) * (box[3] - box[1]) : 0);

/** The label that is likeliest. */
export const likeliest = (probs, labels) => labels[probs.indexOf(Math.max(...probs))];

export const byName = (probs, labels) => Object.fromEntries(labels.map((label, i) => [label, probs[i]]));

/** Buttons that choose one of several faces. What comes back shows {number, label, text, picture} of each, and the
 * chosen; the picture is a face's canvas, if there is one. */
export function chips(root, meta, onChoose) {
  const buttons = new Map();
  return function show(faces, chosen) {
    const numbers = new Set(faces.map((face) => face.number));
    for (const [number, chip] of buttons) if (!numbers.has(number)) chip.button.remove(), buttons.delete(number);
    for (const { number, label, text, picture } of faces) {
      if (!buttons.has(number)) buttons.set(number, newChip(root, number, onChoose));
      const { button, dot, words } = buttons.get(number);
      dot.style.backgroundColor = colourOf(meta, label);
      words.textContent = text;
      if (picture && picture.parentNode !== button) button.prepend(picture);
      button.setAttribute("aria-pressed", String(number === chosen));
    }
  };
}

function newChip(root, number, onChoose) {
  const [dot, words] = [create("span", { className: "dot" }), create("span")];
  const button = create("button", { type: "button", className: "chip" }, dot, words);
  button.addEventListener("click", () => onChoose(number));
  root.append(button);
  return { button, dot, words };
}

/** The probabilities of points between `from` and `to` (seconds), stacked; a gap where none is for 2.5 steps. */
export function drawStack(pen, { width, height, points, colours, from, to, step }) {
  const scale = width / Math.max(to - from, 1e-9);
  for (const run of runs(points.filter(({ time }) => time >= from - step && time <= to + step), 2.5 * step)) {
    const columns = columnsOf(run, (time) => (time - from) * scale, (step * scale) / 2);
    colours.forEach((colour, label) => drawBand(pen, columns, label, colour, height));
  }
}

function runs(points, gap) {
  const found = [];
  points.forEach((point, i) => {
    if (i === 0 || point.time - points[i - 1].time > gap) found.push([]);
    found.at(-1).push(point);
  });
  return found;
}

/** x → cumulated shares; points on one pixel become their mean, and the ends reach half a step further. */
function columnsOf(run, xOf, half) {
  const columns = new Map();
  for (const { time, probs } of run) {
    const x = Math.round(xOf(time) * 2) / 2;
    const column = columns.get(x) ?? columns.set(x, { sums: probs.map(() => 0), count: 0 }).get(x);
    probs.forEach((share, i) => (column.sums[i] += share));
    column.count += 1;
  }
  const all = [...columns].map(([x, { sums, count }]) => {
    let below = 0;
    return { x, ends: [0, ...sums.map((sum) => (below += sum / count))] };
  });
  const reach = Math.max(half, 0.75);
  return [{ ...all[0], x: all[0].x - reach }, ...all, { ...all.at(-1), x: all.at(-1).x + reach }];
}

function drawBand(pen, columns, label, colour, height) {
  pen.beginPath();
  for (const { x, ends } of columns) pen.lineTo(x, ends[label] * height);
  for (const { x, ends } of columns.toReversed()) pen.lineTo(x, ends[label + 1] * height);
  pen.closePath();
  pen.fillStyle = colour;
  pen.fill();
}
