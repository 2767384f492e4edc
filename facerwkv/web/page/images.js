// Images: predict each, draw its faces, overlay the deciding patches, hand the results over.

import { announce, complain, count, create, download, bytes, find, percent } from "./dom.js";
import { bars, drawFaces, drawPatches, fit, shownSquare } from "./draw.js";
import { askJson, form } from "./service.js";

const KEPT_SIDE = 1600; // pixels of an image's longer side that are kept to draw it
const SMALLEST = 480; // CSS pixels to which a small image is enlarged
const TALLEST = 640;
const THUMB = 72;

const shown = [];
let settings;
let work = Promise.resolve();

export function setUpImages(given) {
  settings = given;
  const { limits, methods, labels } = settings.meta;
  const most = `Up to ${count(limits.files, "image")} at once, ${bytes(limits.upload_bytes)} each`;
  find("image-limits").textContent = most;
  find("image-files").addEventListener("change", (event) => {
    addImages([...event.target.files]);
    event.target.value = "";
  });
  find("patch-method").append(...methods.map((name) => create("option", { textContent: name })));
  find("patch-label").append(...labels.map((name) => create("option", { textContent: name })));
  find("patches").disabled = methods.length === 0;
  for (const id of ["patches", "patch-method", "patch-label"]) find(id).addEventListener("change", patchesChanged);
  find("patch-opacity").addEventListener("input", () => shown.forEach(paint));
  find("images-json").addEventListener("click", () => download("facerwkv.json", asJson(), "application/json"));
  find("images-csv").addEventListener("click", () => download("facerwkv.csv", asCsv(labels), "text/csv"));
  find("images-clear").addEventListener("click", () => [...shown].forEach(remove));
}

/** Predict images one after the other; each is shown when it is there. */
export function addImages(files) {
  complain("");
  const { files: most } = settings.meta.limits;
  if (files.length > most) complain(`These are ${files.length} images; the first ${most} are taken.`);
  for (const file of files.slice(0, most)) {
    const entry = { file, ...newCard(file) };
    shown.push(entry);
    find("image-list").prepend(entry.card);
    entry.card.querySelector(".remove").addEventListener("click", () => remove(entry));
    new ResizeObserver(() => paint(entry)).observe(entry.stage);
    enqueue(() => predict(entry));
  }
  update();
}

/** Look at the images again, in the mode that is chosen now. */
export function againImages() {
  shown.filter((entry) => !entry.failed).forEach((entry) => enqueue(() => predict(entry)));
}

function enqueue(job) {
  work = work.then(job);
}

async function predict(entry) {
  if (!shown.includes(entry)) return;
  entry.card.setAttribute("aria-busy", "true");
  try {
    const { upload_bytes: most } = settings.meta.limits;
    if (entry.file.size > most) throw new Error(tooLarge(entry.file, most));
    const query = { mode: settings.mode, on_no_face: settings.onNoFace };
    const { results } = await askJson("predict", { query, method: "POST", body: form("files", entry.file) });
    entry.bitmap ??= await readable(entry.file);
    entry.result = results[0];
    entry.patches = {};
    showResult(entry);
    if (find("patches").checked) await explain(entry);
  } catch (error) {
    showFailure(entry, error.message);
  }
  entry.card.removeAttribute("aria-busy");
  update();
}

function tooLarge({ name }, most) {
  return `${name} is larger than the ${bytes(most)} that are taken. Make it smaller first.`;
}

/** The image, not larger than needed, or null where this browser cannot show its format. */
async function readable(file) {
  try {
    const whole = await createImageBitmap(file);
    const share = KEPT_SIDE / Math.max(whole.width, whole.height);
    if (share >= 1) return whole;
    const size = { resizeWidth: Math.round(whole.width * share), resizeHeight: Math.round(whole.height * share) };
    const small = await createImageBitmap(whole, { ...size, resizeQuality: "high" });
    whole.close();
    return small;
  } catch {
    return null;
  }
}

function newCard(file) {
  const canvas = create("canvas", { role: "img", "aria-label": file.name });
  const stage = create("div", { className: "image-stage" }, canvas);
  const side = create("div", { className: "side" }, create("p", { className: "hint", textContent: "Looking …" }));
  const size = create("span", { className: "hint" });
  const cross = { type: "button", className: "remove plain", "aria-label": `Remove ${file.name}`, textContent: "×" };
  const title = create("header", {}, create("h2", { textContent: file.name }), size, create("button", cross));
  const body = create("div", { className: "live" }, stage, side);
  const card = create("article", { className: "panel image" }, title, body);
  return { card, stage, canvas, side, size };
}

function showResult(entry) {
  const { result, file } = entry;
  const framed = result.faces.filter((face) => face.box).length;
  const found = result.status === "no_face" ? "no face" : framed ? count(framed, "face") : "whole image";
  entry.size.textContent = `${result.size.join(" × ")}, ${found}`;
  entry.canvas.setAttribute("aria-label", `${file.name}: ${found}`);
  const told = result.faces.map((face) => `${face.label} ${percent(face.score)}`);
  announce(`${file.name}: ${[found, ...told].join(", ")}`);
  const faces = result.faces.map((face, i) => faceItem(entry, face, i));
  entry.side.replaceChildren(faces.length ? create("ol", { className: "faces" }, ...faces)
    : create("p", { className: "hint", textContent: noFaceText() }));
  paint(entry);
}

function noFaceText() {
  const advice = settings.meta.modes.includes("scene") ? " Choose “Whole image” to look at all of it." : "";
  return `No face was found.${advice}`;
}

/** An image that was looked at before keeps what was found. */
function showFailure(entry, sentence) {
  complain(sentence);
  if (entry.result) return;
  entry.failed = true;
  entry.stage.hidden = true;
  entry.side.replaceChildren(create("p", { className: "failure", textContent: sentence }));
}

function faceItem(entry, face, index) {
  const panel = bars(settings.meta);
  panel.show(face.probs);
  const thumb = create("canvas", { className: "thumb", "aria-hidden": "true" });
  const name = face.box ? `Face ${index + 1}` : "Whole image";
  const head = create("h3", {}, `${name}: `, create("b", { textContent: face.label }));
  if (entry.bitmap) paintThumb(thumb, entry, face.box ?? [0, 0, ...entry.result.size]);
  return create("li", {}, thumb, create("div", {}, head, panel.element));
}

function paintThumb(canvas, { bitmap, result }, box) {
  const pen = fit(canvas, THUMB, THUMB);
  const share = bitmap.width / result.size[0];
  const [x, y, width, height] = shownSquare(box, 0.1).map((value) => value * share);
  pen.drawImage(bitmap, x, y, width, height, 0, 0, THUMB, THUMB);
}

function paint(entry) {
  const { result, bitmap, stage, canvas } = entry;
  if (!result || !stage.clientWidth) return;
  const [wide, tall] = result.size;
  const width = Math.min(stage.clientWidth, Math.max(wide, SMALLEST), (TALLEST * wide) / tall);
  const scale = width / wide;
  const bounds = { width, height: tall * scale };
  const pen = fit(canvas, bounds.width, bounds.height);
  pen.imageSmoothingQuality = "high";
  if (bitmap) pen.drawImage(bitmap, 0, 0, bounds.width, bounds.height);
  else paintBlank(pen, bounds);
  if (find("patches").checked) paintPatches(pen, entry, scale, bounds);
  const place = ([x1, y1, x2, y2]) => [x1, y1, x2 - x1, y2 - y1].map((value) => value * scale);
  const names = result.faces.map((_, i) => (result.faces.length > 1 ? i + 1 : ""));
  drawFaces(pen, result.faces, settings.meta, place, names, bounds);
}

function paintBlank(pen, { width, height }) {
  pen.fillStyle = "#444a52";
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = "#fff";
  pen.font = "15px system-ui, sans-serif";
  pen.fillText("This browser cannot show the image's format.", 16, 30, width - 32);
}

function paintPatches(pen, entry, scale, bounds) {
  const opacity = find("patch-opacity").value / 100;
  for (const { box, scores } of entry.patches[patchKey()] ?? []) {
    const square = box ? shownSquare(box, settings.meta.transform.margin ?? 0).map((value) => value * scale)
      : [0, 0, bounds.width, bounds.height];
    drawPatches(pen, scores, square, opacity);
  }
}

const patchKey = () => `${find("patch-method").value} ${find("patch-label").value}`;

function patchesChanged() {
  find("patch-options").hidden = !find("patches").checked;
  for (const entry of shown) {
    paint(entry);
    if (find("patches").checked) enqueue(() => explain(entry).catch((error) => complain(error.message)));
  }
}

async function explain(entry) {
  const key = patchKey();
  if (!shown.includes(entry) || !entry.result?.faces.length || entry.patches[key]) return;
  const mode = entry.result.faces[0].box ? settings.mode : "scene";
  const query = { method: find("patch-method").value, label: find("patch-label").value, mode };
  const answer = await askJson("explain", { query, method: "POST", body: form("file", entry.file) });
  entry.patches[key] = answer.explanations;
  paint(entry);
  const told = answer.explanations.map(({ label, prob }) => `${label} ${percent(prob)}`).join(", ");
  announce(`The patches that decided are shown for ${entry.file.name}: ${told}`);
}

function remove(entry) {
  const next = entry.card.nextElementSibling ?? entry.card.previousElementSibling;
  if (entry.card.contains(document.activeElement)) (next?.querySelector(".remove") ?? find("image-files")).focus();
  shown.splice(shown.indexOf(entry), 1);
  entry.card.remove();
  entry.bitmap?.close();
  update();
}

function update() {
  find("image-tools").hidden = shown.length === 0;
}

const results = () => shown.filter((entry) => entry.result).map((entry) => entry.result);

/** As `facerwkv predict --out FILE.json` writes it. */
function asJson() {
  return `[\n${results().map(({ size, ...result }) => JSON.stringify(result)).join(",\n")}\n]\n`;
}

/** As `facerwkv predict --out FILE.csv` writes it. */
function asCsv(labels) {
  const rows = [["source", "status", "x1", "y1", "x2", "y2", "label", "score", ...labels]];
  for (const { source, status, faces } of results()) {
    const nothing = [{ probs: {}, label: "", score: "" }];
    for (const { box, label, score, probs } of faces.length ? faces : nothing) {
      const place = box ?? ["", "", "", ""];
      rows.push([source, status, ...place, label, score, ...labels.map((name) => probs[name] ?? "")]);
    }
  }
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

function cell(value) {
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
