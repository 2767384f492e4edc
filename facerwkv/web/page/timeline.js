// The timeline: a row of stacked probabilities per face over the time of a video, a cursor, keys and clicks that seek.

import { fit } from "./draw.js";
import { create } from "./elements.js";
import { clock } from "./messages.js";
import { drawStack } from "./tracks.js";

const AXIS = 22; // CSS pixels
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

export class Timeline {
  /** `onSeek` is called with the seconds that a person chose, and the number of the row that was clicked, if one was. */
  constructor(root, colours, onSeek) {
    Object.assign(this, { root, colours, onSeek, rows: [], length: 0, step: 1, time: 0, text: "" });
    this.axis = create("canvas", { "aria-hidden": "true" });
    this.cursor = create("div", { className: "cursor", "aria-hidden": "true" });
    new ResizeObserver(() => this.paint()).observe(root);
    root.addEventListener("pointerdown", (event) => this.drag(event));
    root.addEventListener("pointermove", (event) => {
      if (root.hasPointerCapture(event.pointerId)) this.seek(this.timeAt(event));
    });
    root.addEventListener("keydown", (event) => this.key(event));
  }

  /** Show a row for each of `tracks` in a video of `length` seconds; `step` is the time between frames. */
  show(tracks, length, step) {
    this.rows = tracks.map(({ number, points }) => {
      return { number, points, canvas: create("canvas", { className: "row", "aria-hidden": "true" }) };
    });
    Object.assign(this, { length, step });
    this.root.replaceChildren(...this.rows.map(({ canvas }) => canvas), this.axis, this.cursor);
    this.root.setAttribute("aria-valuemax", length.toFixed(1));
    this.paint();
  }

  /** Make the row of one face stand out. */
  choose(number) {
    for (const row of this.rows) row.canvas.classList.toggle("chosen", row.number === number);
  }

  /** Move the cursor; `text` describes that moment to screen readers. */
  move(time, text) {
    Object.assign(this, { time, text });
    const share = this.length ? Math.min(1, time / this.length) : 0;
    this.cursor.style.transform = `translateX(${share * this.root.clientWidth}px)`;
    this.root.setAttribute("aria-valuenow", time.toFixed(1));
    this.root.setAttribute("aria-valuetext", text);
  }

  paint() {
    const width = this.root.clientWidth;
    if (!width) return;
    const style = getComputedStyle(this.root);
    for (const { canvas, points } of this.rows) {
      const height = canvas.clientHeight;
      const pen = fit(canvas, width, height);
      pen.fillStyle = style.getPropertyValue("--track");
      pen.fillRect(0, 0, width, height);
      const { colours, length, step } = this;
      drawStack(pen, { width, height, points, colours, from: 0, to: length, step });
    }
    this.paintAxis(fit(this.axis, width, AXIS), width, style.color);
    this.move(this.time, this.text);
  }

  paintAxis(pen, width, colour) {
    const step = STEPS.find((seconds) => (seconds / this.length) * width >= 64) ?? STEPS.at(-1);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "bottom";
    pen.fillStyle = colour;
    for (let time = 0; time <= this.length; time += step) {
      const x = (time / this.length) * width;
      pen.fillRect(Math.min(x, width - 1), 0, 1, 4);
      const text = clock(time, step < 1 ? 1 : 0);
      const long = pen.measureText(text).width;
      pen.fillText(text, Math.max(0, Math.min(width - long, x - long / 2)), AXIS);
    }
  }

  drag(event) {
    if (event.button !== 0) return;
    this.root.setPointerCapture(event.pointerId);
    this.seek(this.timeAt(event), this.rows.find(({ canvas }) => canvas === event.target)?.number);
  }

  timeAt(event) {
    const { left, width } = this.root.getBoundingClientRect();
    return ((event.clientX - left) / width) * this.length;
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    const goal = { Home: 0, End: this.length }[event.key] ?? (event.key in steps ? this.time + steps[event.key] : null);
    if (goal === null) return;
    event.preventDefault();
    this.seek(goal);
  }

  seek(time, number) {
    this.onSeek(Math.max(0, Math.min(this.length, time)), number);
  }
}
