// An image with its faces framed, and their probabilities as bars.

import { element, percent } from "./elements.js";
import { draw } from "./image.js";

const [SMALLEST, LARGEST] = [480, 1280]; // the longer side of what is drawn
const COLUMN = 640; // about how wide it is shown at most

/** An article for an image that was read: `source` is its ImageBitmap or the video. */
export function article(name, source, size, faces, meta) {
  const canvas = element("canvas", { role: "img", ariaLabel: description(name, faces) });
  frame(canvas, source, size, faces, meta);
  const said = `${size.width} x ${size.height}${meta.detector ? `, ${count(faces.length)}` : ""}`;
  const heading = element("h2", {}, name, element("span", { className: "quiet" }, said));
  const list = element("ol", { className: "faces" }, ...faces.map((face, i) => item(face, i, faces.length, meta)));
  return element("article", {}, heading, element("div", { className: "seen" }, canvas, list));
}

/** An article for one that could not be. */
export function failure(name, message) {
  return element("article", {}, element("h2", {}, name), element("p", { className: "error" }, message));
}

function count(faces) {
  return faces === 0 ? "no face was found" : faces === 1 ? "1 face" : `${faces} faces`;
}

function description(name, faces) {
  return `${name}: ${faces.map((face) => face.label).join(", ") || "no face"}`;
}

function colour(label, { labels, colours }) {
  return colours[labels.indexOf(label) % colours.length];
}

function frame(canvas, source, { width, height }, faces, meta) {
  const longer = Math.max(width, height);
  const scale = Math.min(Math.max(longer, SMALLEST), LARGEST) / longer;
  const sides = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  const brush = draw(canvas, source, ...sides);
  const unit = Math.max(1, sides[0] / Math.min(innerWidth, COLUMN)); // about a pixel of the screen
  faces.forEach(({ box, label }, i) => {
    if (!box) return;
    const [x1, y1, x2, y2] = box.map((edge) => edge * scale);
    Object.assign(brush, { strokeStyle: colour(label, meta), fillStyle: colour(label, meta), lineWidth: 2 * unit });
    brush.strokeRect(x1, y1, x2 - x1, y2 - y1);
    if (faces.length > 1) badge(brush, String(i + 1), x1 - unit, y1 - unit, 20 * unit);
  });
}

/** A number in the upper left corner of a frame, in the frame's colour. */
function badge(brush, text, x, y, size) {
  const font = `600 ${0.75 * size}px system-ui, sans-serif`;
  Object.assign(brush, { font, textAlign: "center", textBaseline: "middle" });
  const width = Math.max(size, brush.measureText(text).width + size / 2);
  brush.fillRect(x, y, width, size);
  brush.fillStyle = "white";
  brush.fillText(text, x + width / 2, y + size / 2);
}

function item({ label, score, probs }, i, faces, meta) {
  const heading = element("h3", {}, `${label} ${percent(score)}`);
  if (faces > 1) {
    const number = element("span", { className: "number" }, String(i + 1));
    number.style.background = colour(label, meta);
    heading.prepend(number);
  }
  return element("li", {}, heading, ...Object.entries(probs).map(([name, share]) => bar(name, share, meta)));
}

function bar(name, share, meta) {
  const filled = element("span");
  filled.style.width = `${100 * share}%`;
  filled.style.background = colour(name, meta);
  const track = element("span", { className: "track" }, filled);
  return element("div", { className: "bar" }, element("span", {}, name), track, element("span", {}, percent(share)));
}
