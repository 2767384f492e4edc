// The panel of one image: the image with its faces framed, and each face's probabilities as bars.

import { bars, drawFaces, fit } from "./draw.js";
import { count, create, download } from "./elements.js";

const KEPT_SIDE = 1600; // pixels of an image's longer side that are kept to draw it
const [SMALLEST, TALLEST, THUMB] = [480, 640, 72]; // CSS pixels

/** A bitmap, or a smaller copy of one that is larger than needed to draw it. */
export async function reduced(bitmap) {
  const share = KEPT_SIDE / Math.max(bitmap.width, bitmap.height);
  if (share >= 1) return bitmap;
  const size = { resizeWidth: Math.round(bitmap.width * share), resizeHeight: Math.round(bitmap.height * share) };
  const small = await createImageBitmap(bitmap, { ...size, resizeQuality: "high" });
  bitmap.close();
  return small;
}

/** The square around a face's box with a margin: x, y, width and height in the image's pixels. */
export function squareAround([x1, y1, x2, y2], margin) {
  const side = Math.max(1, Math.round(Math.max(x2 - x1, y2 - y1) * (1 + 2 * margin)));
  return [Math.round((x1 + x2 - side) / 2), Math.round((y1 + y2 - side) / 2), side, side];
}

/** A face cut out of a bitmap or video, in an image of `wide` times `tall` pixels; all of it without a box. */
export function thumbnail(source, box, [wide, tall]) {
  const canvas = create("canvas", { className: "thumb", "aria-hidden": "true" });
  const share = (source.videoWidth ?? source.width) / wide;
  const [x, y, longer] = squareAround(box ?? [0, 0, wide, tall], 0.1);
  const side = Math.min(longer, wide, tall);
  const inside = (at, length) => Math.min(Math.max(at + (longer - side) / 2, 0), length - side);
  const square = [inside(x, wide), inside(y, tall), side, side].map((value) => value * share);
  fit(canvas, THUMB, THUMB).drawImage(source, ...square, 0, 0, THUMB, THUMB);
  canvas.style.width = canvas.style.height = ""; // the style sheet's
  return canvas;
}

export class ImagePanel {
  static likeliestFirst = true; // the order of the bars; `showFaces` follows it

  /** `overlay(pen, scale, bounds)` draws below the boxes; `onRemove` is for a panel that can be closed. */
  constructor(name, meta, { overlay = () => {}, onRemove } = {}) {
    Object.assign(this, { name, meta, overlay, result: null, source: null });
    this.canvas = create("canvas", { role: "img", "aria-label": name });
    this.stage = create("div", { className: "image-stage" }, this.canvas);
    this.side = create("div", { className: "side" });
    this.size = create("span", { className: "hint" });
    this.saver = this.button("Save image", `Save image: ${name}`, () => this.save());
    this.saver.hidden = true;
    this.buttons = create("div", { className: "buttons" }, this.saver);
    if (onRemove) this.buttons.append(this.button("×", `Remove ${name}`, onRemove, "remove plain"));
    const header = create("header", {}, create("h2", { textContent: name, title: name }), this.size, this.buttons);
    const body = create("div", { className: "live" }, this.stage, this.side);
    this.element = create("article", { className: "panel image" }, header, body);
    new ResizeObserver(() => this.paint()).observe(this.stage);
    this.say("Waiting …");
  }

  button(text, label, onClick, className = "plain") {
    const button = create("button", { type: "button", className, textContent: text, "aria-label": label });
    button.addEventListener("click", onClick);
    return button;
  }

  /** What happens to the image now. */
  say(text) {
    if (!this.result) this.side.replaceChildren(create("p", { className: "hint", textContent: text }));
  }

  /** Show the image before its result. */
  preview(source) {
    if (!source || this.result) return;
    this.source = source;
    this.paint();
  }

  /** Show a result { status, size, faces }. `source` is the image; null where the browser cannot show it. */
  show(result, source) {
    Object.assign(this, { result, source });
    const framed = result.faces.filter((face) => face.box).length;
    this.found = result.status === "no_face" ? "no face" : framed ? count(framed, "face") : "whole image";
    this.size.textContent = `${result.size.join(" × ")}, ${this.found}`;
    this.canvas.setAttribute("aria-label", `${this.name}: ${this.found}`);
    this.stage.hidden = false;
    this.saver.hidden = !source;
    this.showFaces();
    this.paint();
  }

  fail(sentence) {
    this.stage.hidden = true;
    this.side.replaceChildren(create("p", { className: "error", textContent: sentence }));
  }

  showFaces() {
    const { faces } = this.result ?? {};
    if (!faces) return;
    const advice = this.meta.modes?.includes("scene") ? " Choose “Whole image” to look at all of it." : "";
    const nothing = create("p", { className: "hint", textContent: `No face was found.${advice}` });
    const items = faces.map((face, i) => this.faceItem(face, i));
    this.side.replaceChildren(items.length ? create("ol", { className: "faces" }, ...items) : nothing);
  }

  faceItem(face, index) {
    const panel = bars(this.meta);
    panel.show(face.probs, ImagePanel.likeliestFirst);
    const name = face.box ? `Face ${index + 1}: ` : "Whole image: ";
    const heading = create("h3", {}, name, create("b", { textContent: face.label }), face.unsure ? " (unsure)" : "");
    const thumb = this.source ? thumbnail(this.source, face.box, this.result.size) : create("span", { className: "thumb" });
    return create("li", {}, thumb, create("div", {}, heading, panel.element));
  }

  paint() {
    const { result, source, stage, canvas } = this;
    const [wide, tall] = result?.size ?? [source?.width, source?.height];
    if (!wide || !stage.clientWidth) return;
    const width = Math.min(stage.clientWidth, Math.max(wide, SMALLEST), (TALLEST * wide) / tall);
    this.draw(fit(canvas, width, (tall * width) / wide), width, (tall * width) / wide);
  }

  /** The image with what is known of it, `width` times `height` of the pen's units large. */
  draw(pen, width, height) {
    const { result, source } = this;
    pen.imageSmoothingQuality = "high";
    if (source) pen.drawImage(source, 0, 0, width, height);
    else {
      pen.fillStyle = "#444a52";
      pen.fillRect(0, 0, width, height);
      Object.assign(pen, { fillStyle: "#fff", font: "15px system-ui, sans-serif" });
      pen.fillText("This browser cannot show the image's format.", 16, 30, width - 32);
    }
    if (!result) return;
    const scale = width / result.size[0];
    this.overlay(pen, scale, { width, height });
    const toPixels = ([x1, y1, x2, y2]) => [x1, y1, x2 - x1, y2 - y1].map((value) => value * scale);
    const names = result.faces.map((_, i) => (result.faces.length > 1 ? i + 1 : ""));
    drawFaces(pen, result.faces, this.meta, toPixels, names, { width, height });
  }

  /** Take the panel off the page; where it had the focus, the next one has it, or `otherwise`. */
  remove(otherwise) {
    const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
    if (this.element.contains(document.activeElement)) (next?.querySelector(".remove") ?? otherwise).focus();
    this.element.remove();
    this.source?.close();
  }

  /** Save the image as it is shown, at its own size or the kept one. */
  save() {
    const { width, height } = this.source;
    const canvas = create("canvas", { width, height });
    const pen = canvas.getContext("2d");
    const zoom = Math.max(1, Math.max(width, height) / 900); // lines and letters as on the page
    pen.scale(zoom, zoom);
    this.draw(pen, width / zoom, height / zoom);
    canvas.toBlob((blob) => download(`${this.name.replace(/\.[^.]*$/, "")}_faces.png`, blob, "image/png"), "image/png");
  }
}
