// The panel of one image: the image with its faces framed, and each face's probabilities as bars.

import { bars, drawFaces, fit } from "./draw.js";
import { count, create } from "./elements.js";

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

export class ImagePanel {
  /** `titleOf(face, i, faces)` gives the nodes of a face's heading; `overlay(pen, scale, bounds)` draws below the boxes. */
  constructor(name, meta, titleOf, overlay = () => {}) {
    Object.assign(this, { name, meta, titleOf, overlay, result: null, source: null });
    this.canvas = create("canvas", { role: "img", "aria-label": name });
    this.stage = create("div", { className: "image-stage" }, this.canvas);
    this.side = create("div", { className: "side" }, create("p", { className: "hint", textContent: "Looking …" }));
    this.size = create("span", { className: "hint" });
    this.header = create("header", {}, create("h2", { textContent: name }), this.size);
    const body = create("div", { className: "live" }, this.stage, this.side);
    this.element = create("article", { className: "panel image" }, this.header, body);
    new ResizeObserver(() => this.paint()).observe(this.stage);
  }

  /** Show a result { status, size, faces }. `source` is the image or video; null where the browser cannot show it. */
  show(result, source) {
    Object.assign(this, { result, source });
    const framed = result.faces.filter((face) => face.box).length;
    this.found = result.status === "no_face" ? "no face" : framed ? count(framed, "face") : "whole image";
    this.size.textContent = `${result.size.join(" × ")}, ${this.found}`;
    this.canvas.setAttribute("aria-label", `${this.name}: ${this.found}`);
    const advice = this.meta.modes?.includes("scene") ? " Choose “Whole image” to look at all of it." : "";
    const nothing = create("p", { className: "hint", textContent: `No face was found.${advice}` });
    const faces = result.faces.map((face, i) => this.faceItem(face, i));
    this.side.replaceChildren(faces.length ? create("ol", { className: "faces" }, ...faces) : nothing);
    this.paint();
  }

  fail(sentence) {
    this.stage.hidden = true;
    this.side.replaceChildren(create("p", { className: "error", textContent: sentence }));
  }

  faceItem(face, index) {
    const { source, result: { size, faces } } = this;
    const panel = bars(this.meta);
    panel.show(face.probs);
    const thumb = create("canvas", { className: "thumb", "aria-hidden": "true" });
    if (source) {
      const share = (source.videoWidth ?? source.width) / size[0];
      const square = squareAround(face.box ?? [0, 0, ...size], 0.1).map((value) => value * share);
      fit(thumb, THUMB, THUMB).drawImage(source, ...square, 0, 0, THUMB, THUMB);
    }
    const heading = create("h3", {}, ...this.titleOf(face, index, faces));
    return create("li", {}, thumb, create("div", {}, heading, panel.element));
  }

  paint() {
    const { result, source, stage, canvas } = this;
    if (!result || !stage.clientWidth) return;
    const [wide, tall] = result.size;
    const width = Math.min(stage.clientWidth, Math.max(wide, SMALLEST), (TALLEST * wide) / tall);
    const scale = width / wide;
    const bounds = { width, height: tall * scale };
    const pen = fit(canvas, bounds.width, bounds.height);
    pen.imageSmoothingQuality = "high";
    if (source) pen.drawImage(source, 0, 0, bounds.width, bounds.height);
    else {
      pen.fillStyle = "#444a52";
      pen.fillRect(0, 0, bounds.width, bounds.height);
      Object.assign(pen, { fillStyle: "#fff", font: "15px system-ui, sans-serif" });
      pen.fillText("This browser cannot show the image's format.", 16, 30, bounds.width - 32);
    }
    this.overlay(pen, scale, bounds);
    const toPixels = ([x1, y1, x2, y2]) => [x1, y1, x2 - x1, y2 - y1].map((value) => value * scale);
    const names = result.faces.map((_, i) => (result.faces.length > 1 ? i + 1 : ""));
    drawFaces(pen, result.faces, this.meta, toPixels, names, bounds);
  }
}
