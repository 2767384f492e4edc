// Faces on a canvas, probabilities as bars.

import { create, percent } from "./elements.js";

const FONT = "600 13px system-ui, sans-serif";
const TAG = 22;

/** Set a canvas's size in CSS pixels, sharp on every screen, and clear it; its context. */
export function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}

/** The colour of a label. */
export const colourOf = ({ colours, labels }, label) => colours[Math.max(labels.indexOf(label), 0) % colours.length];

/** Boxes and tags of faces. `toPixels` maps a box to x, y, width and height in CSS pixels; `names` are the faces' names. */
export function drawFaces(pen, faces, meta, toPixels, names, bounds) {
  const framed = faces.map((face, i) => (
    { ...face, name: names[i], at: face.box && toPixels(face.box), colour: colourOf(meta, face.label) }
  ));
  for (const { at, colour } of framed.filter((face) => face.at)) {
    pen.beginPath();
    pen.roundRect(...at, 6);
    for (const [lineWidth, strokeStyle] of [[5, "rgb(255 255 255 / 0.9)"], [2.5, colour]]) {
      Object.assign(pen, { lineWidth, strokeStyle });
      pen.stroke();
    }
  }
  for (const face of framed) drawTag(pen, face, bounds);
}

/** Name, label and score above a box, or as much as fits; at the lower edge for the whole image. */
function drawTag(pen, { at, name, label, score, unsure, colour }, bounds) {
  Object.assign(pen, { font: FONT, textBaseline: "middle" });
  const [x, y, width] = at ?? [8, bounds.height - 8, bounds.width];
  const full = `${name} ${label}${unsure ? "?" : ""} ${percent(score)}`.trim();
  const text = pen.measureText(full).width + 14 > Math.max(1.5 * width, 80) ? `${name}` : full;
  const long = pen.measureText(text).width + 14;
  const left = Math.max(2, Math.min(x, bounds.width - long - 2));
  const top = y - TAG - 4 < 0 ? y + 4 : y - TAG - 4;
  pen.beginPath();
  pen.roundRect(left, top, long, TAG, 5);
  pen.fillStyle = colour;
  pen.fill();
  pen.fillStyle = "#fff";
  pen.fillText(text, left + 7, top + TAG / 2 + 0.5);
}

/** A bar per label. `show` takes probabilities by name, or null for none; and whether the likeliest is the first. */
export function bars(meta) {
  const rows = meta.labels.map((label) => {
    const fill = create("span", { className: "fill" });
    fill.style.backgroundColor = colourOf(meta, label);
    const value = create("span", { className: "value" });
    const track = create("span", { className: "track" }, fill);
    return { label, fill, value, element: create("li", {}, create("span", { textContent: label }), track, value) };
  });
  const list = create("ul", { className: "bars" });
  const show = (probs, likeliestFirst = false) => {
    const sorted = likeliestFirst ? rows.toSorted((a, b) => probs[b.label] - probs[a.label]) : rows;
    list.append(...sorted.map(({ element }) => element));
    const most = probs && Math.max(...Object.values(probs));
    for (const { label, fill, value, element } of rows) {
      const share = probs?.[label] ?? 0;
      fill.style.width = `${100 * share}%`;
      value.textContent = probs ? percent(share) : "–";
      element.classList.toggle("likeliest", Boolean(probs) && share === most);
    }
  };
  show(null);
  return { element: list, show };
}
