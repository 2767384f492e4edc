// The timeline: stacked probabilities of one face over the time of a video, a cursor, keys and clicks that seek.

import { fit } from "./draw.js";
import { clock } from "./messages.js";
import { drawStack } from "./tracks.js";

const HEIGHT = 168;
const AXIS = 22;
const STEPS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

export class Timeline {
  /** `onSeek` is called with the seconds that a person chose. */
  constructor(root, colours, onSeek) {
    Object.assign(this, { root, colours, onSeek, points: [], length: 0, step: 1, time: 0 });
    this.canvas = root.querySelector("canvas");
    this.cursor = root.querySelector(".cursor");
    new ResizeObserver(() => this.paint()).observe(root);
    root.addEventListener("pointerdown", (event) => this.drag(event));
    root.addEventListener("pointermove", (event) => {
      if (root.hasPointerCapture(event.pointerId)) this.seek(this.timeAt(event));
    });
    root.addEventListener("keydown", (event) => this.key(event));
  }

  /** Show the points {time, probs} of one face in a video of `length` seconds; `step` is the time between frames. */
  show(points, length, step) {
    Object.assign(this, { points, length, step });
    this.root.setAttribute("aria-valuemax", length.toFixed(1));
    this.paint();
  }

  /** Move the cursor; `text` describes that moment to screen readers. */
  move(time, text) {
    this.time = time;
    const share = this.length ? Math.min(1, time / this.length) : 0;
    this.cursor.style.transform = `translateX(${share * this.root.clientWidth}px)`;
    this.root.setAttribute("aria-valuenow", time.toFixed(1));
    this.root.setAttribute("aria-valuetext", text);
  }

  paint() {
    const width = this.root.clientWidth;
    if (!width) return;
    const pen = fit(this.canvas, width, HEIGHT + AXIS);
    const style = getComputedStyle(this.root);
    pen.fillStyle = style.getPropertyValue("--track");
    pen.fillRect(0, 0, width, HEIGHT);
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, width, HEIGHT);
    pen.clip();
    const { points, colours, length, step } = this;
    drawStack(pen, { width, height: HEIGHT, points, colours, from: 0, to: length, step });
    pen.restore();
    this.paintAxis(pen, width, style.color);
    this.move(this.time, this.root.getAttribute("aria-valuetext") ?? "");
  }

  paintAxis(pen, width, colour) {
    const step = STEPS.find((seconds) => (seconds / this.length) * width >= 64) ?? STEPS.at(-1);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "bottom";
    pen.fillStyle = colour;
    for (let time = 0; time <= this.length; time += step) {
      const x = (time / this.length) * width;
      pen.fillRect(Math.min(x, width - 1), HEIGHT, 1, 4);
      const text = clock(time, step < 1 ? 1 : 0);
      const long = pen.measureText(text).width;
      pen.fillText(text, Math.max(0, Math.min(width - long, x - long / 2)), HEIGHT + AXIS);
    }
  }

  drag(event) {
    if (event.button !== 0) return;
    this.root.setPointerCapture(event.pointerId);
    this.seek(this.timeAt(event));
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

  seek(time) {
    this.onSeek(Math.max(0, Math.min(this.length, time)));
  }
}
