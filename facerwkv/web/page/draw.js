// Faces and patches on a canvas, probabilities as bars.

import { create, percent } from "./dom.js";

const FOR = [214, 47, 39];
const AGAINST = [33, 102, 172];
const FONT = "600 13px system-ui, sans-serif";
const TAG = 22;

/** Give a canvas so many CSS pixels, sharp on every screen, and clear it. */
export function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}

/** The colour of a label. */
export const colourOf = (meta, label) => meta.colours[meta.labels.indexOf(label)] ?? meta.colours[0];

/** Frames and tags of faces. `place` takes a box to CSS pixels x, y, width, height; `names` are the faces' names. */
export function drawFaces(pen, faces, meta, place, names, bounds) {
  const framed = faces.map((face, i) => ({ ...face, name: names[i], at: face.box && place(face.box) }));
  for (const face of framed) if (face.at) drawFrame(pen, face.at, colourOf(meta, face.label));
  for (const face of framed) drawTag(pen, face, colourOf(meta, face.label), bounds);
}

function drawFrame(pen, [x, y, width, height], colour) {
  pen.beginPath();
  pen.roundRect(x, y, width, height, 6);
  for (const [line, style] of [[5, "rgb(255 255 255 / 0.9)"], [2.5, colour]]) {
    pen.lineWidth = line;
    pen.strokeStyle = style;
    pen.stroke();
  }
}

function drawTag(pen, face, colour, bounds) {
  pen.font = FONT;
  const [x, y, width] = face.at ?? [8, bounds.height - 8, bounds.width];
  const full = `${face.name} ${face.label} ${percent(face.score)}`.trim();
  const text = pen.measureText(full).width + 14 > Math.max(1.5 * width, 80) ? `${face.name}` : full;
  const long = pen.measureText(text).width + 14;
  const left = Math.max(2, Math.min(x, bounds.width - long - 2));
  const top = y - TAG - 4 < 0 ? y + 4 : y - TAG - 4;
  pen.beginPath();
  pen.roundRect(left, top, long, TAG, 5);
  pen.fillStyle = colour;
  pen.fill();
  pen.fillStyle = "#fff";
  pen.textBaseline = "middle";
  pen.fillText(text, left + 7, top + TAG / 2 + 0.5);
}

/** The square that the model was shown of a face, x, y and side in the image's pixels. */
export function shownSquare([x1, y1, x2, y2], margin) {
  const side = Math.max(1, Math.round(Math.max(x2 - x1, y2 - y1) * (1 + 2 * margin)));
  return [Math.round((x1 + x2 - side) / 2), Math.round((y1 + y2 - side) / 2), side, side];
}

/** Rows of patches over x, y, width, height in CSS pixels: red above 0, blue below, the strongest as opaque as said. */
export function drawPatches(pen, scores, [x, y, width, height], opacity) {
  const most = Math.max(...scores.flat().map(Math.abs), 1e-12);
  const [tall, wide] = [height / scores.length, width / scores[0].length];
  scores.forEach((row, i) => row.forEach((score, j) => {
    pen.fillStyle = `rgb(${(score >= 0 ? FOR : AGAINST).join(" ")} / ${(opacity * Math.abs(score)) / most})`;
    pen.fillRect(x + j * wide, y + i * tall, wide, tall);
  }));
}

/** A bar for every label. `show` takes probabilities by name, or null for none. */
export function bars(meta) {
  const rows = meta.labels.map((label) => {
    const fill = create("span", { className: "fill" });
    fill.style.backgroundColor = colourOf(meta, label);
    const value = create("span", { className: "value" });
    const track = create("span", { className: "track" }, fill);
    return { label, fill, value, element: create("li", {}, create("span", { textContent: label }), track, value) };
  });
  const show = (probs) => {
    const most = probs && Math.max(...Object.values(probs));
    for (const { label, fill, value, element } of rows) {
      const share = probs?.[label] ?? 0;
      fill.style.width = `${100 * share}%`;
      value.textContent = probs ? percent(share) : "–";
      element.classList.toggle("likeliest", Boolean(probs) && share === most);
    }
  };
  show(null);
  return { element: create("ul", { className: "bars" }, ...rows.map((row) => row.element)), show };
}
