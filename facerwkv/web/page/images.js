// Images: predict each, show its faces, overlay the deciding patches, save the results.

import { count, create, download, find, percent } from "./elements.js";
import { announce, bytes, complain } from "./messages.js";
import { uprightBitmap } from "./orient.js";
import { ImagePanel, reduced, squareAround } from "./panel.js";
import { askJson, form } from "./service.js";

const [FOR, AGAINST] = ["214 47 39", "33 102 172"];

const shown = []; // { file, panel, patches by method and label, failed }
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
  find("patch-opacity").addEventListener("input", () => shown.forEach(({ panel }) => panel.paint()));
  find("images-json").addEventListener("click", () => download("facerwkv.json", asJson(), "application/json"));
  find("images-csv").addEventListener("click", () => download("facerwkv.csv", asCsv(labels), "text/csv"));
  find("images-clear").addEventListener("click", () => [...shown].forEach(remove));
}

/** Predict images one after the other; each is shown when its result arrives. */
export function addImages(files) {
  complain("");
  const { files: most } = settings.meta.limits;
  if (files.length > most) complain(`These are ${files.length} images; the first ${most} are used.`);
  for (const file of files.slice(0, most)) {
    const entry = { file };
    entry.panel = new ImagePanel(file.name, settings.meta, titleOf, (...drawing) => paintPatches(entry, ...drawing));
    const cross = { type: "button", className: "remove plain", "aria-label": `Remove ${file.name}`, textContent: "×" };
    const button = create("button", cross);
    button.addEventListener("click", () => remove(entry));
    entry.panel.header.append(button);
    shown.push(entry);
    find("image-list").prepend(entry.panel.element);
    enqueue(() => predict(entry));
  }
  update();
}

const titleOf = ({ box, label }, i) => [`${box ? `Face ${i + 1}` : "Whole image"}: `, create("b", { textContent: label })];

/** Predict all images again, in the mode that is chosen now. */
export function againImages() {
  shown.filter((entry) => !entry.failed).forEach((entry) => enqueue(() => predict(entry)));
}

function enqueue(job) {
  work = work.then(job);
}

async function predict(entry) {
  const { file, panel } = entry;
  if (!shown.includes(entry)) return;
  panel.element.setAttribute("aria-busy", "true");
  try {
    const { upload_bytes: most } = settings.meta.limits;
    if (file.size > most) throw new Error(`${file.name} is larger than ${bytes(most)}. Make it smaller first.`);
    const query = { mode: settings.mode, on_no_face: settings.onNoFace };
    const { results } = await askJson("predict", { query, method: "POST", body: form("files", file) });
    entry.patches = {};
    // null where this browser cannot show the format
    panel.show(results[0], panel.source ?? await uprightBitmap(file).then(reduced).catch(() => null));
    const spoken = results[0].faces.map((face) => `${face.label} ${percent(face.score)}`);
    announce(`${file.name}: ${[panel.found, ...spoken].join(", ")}`);
    if (find("patches").checked) await explain(entry);
  } catch (error) {
    complain(error.message);
    if (!panel.result) { // an image with an earlier result keeps it
      entry.failed = true;
      panel.fail(error.message);
    }
  }
  panel.element.removeAttribute("aria-busy");
  update();
}

const patchKey = () => `${find("patch-method").value} ${find("patch-label").value}`;

/** The patches of every face: red above 0, blue below, the strongest as opaque as the slider says. */
function paintPatches({ patches }, pen, scale, bounds) {
  if (!find("patches").checked) return;
  const opacity = find("patch-opacity").value / 100;
  for (const { box, scores } of patches[patchKey()] ?? []) {
    const [x, y, width, height] = box
      ? squareAround(box, settings.meta.transform.margin ?? 0).map((value) => value * scale)
      : [0, 0, bounds.width, bounds.height];
    const most = Math.max(...scores.flat().map(Math.abs), 1e-12);
    const [tall, wide] = [height / scores.length, width / scores[0].length];
    scores.forEach((row, i) => row.forEach((score, j) => {
      pen.fillStyle = `rgb(${score >= 0 ? FOR : AGAINST} / ${(opacity * Math.abs(score)) / most})`;
      pen.fillRect(x + j * wide, y + i * tall, wide, tall);
    }));
  }
}

function patchesChanged() {
  find("patch-options").hidden = !find("patches").checked;
  for (const entry of shown) {
    entry.panel.paint();
    if (find("patches").checked) enqueue(() => explain(entry).catch((error) => complain(error.message)));
  }
}

async function explain(entry) {
  const { file, panel, patches } = entry;
  const key = patchKey();
  if (!shown.includes(entry) || !panel.result?.faces.length || patches[key]) return;
  const mode = panel.result.faces[0].box ? settings.mode : "scene";
  const query = { method: find("patch-method").value, label: find("patch-label").value, mode };
  const answer = await askJson("explain", { query, method: "POST", body: form("file", file) });
  patches[key] = answer.explanations;
  panel.paint();
  const spoken = answer.explanations.map(({ label, prob }) => `${label} ${percent(prob)}`).join(", ");
  announce(`The patches that decided are shown for ${file.name}: ${spoken}`);
}

function remove(entry) {
  const { element, source } = entry.panel;
  const next = element.nextElementSibling ?? element.previousElementSibling;
  if (element.contains(document.activeElement)) (next?.querySelector(".remove") ?? find("image-files")).focus();
  shown.splice(shown.indexOf(entry), 1);
  element.remove();
  source?.close();
  update();
}

function update() {
  find("image-tools").hidden = shown.length === 0;
}

const results = () => shown.map(({ panel }) => panel.result).filter(Boolean);

/** As `facerwkv predict --out FILE.json` writes it. */
function asJson() {
  return `[\n${results().map(({ size, ...result }) => JSON.stringify(result)).join(",\n")}\n]\n`;
}

/** As `facerwkv predict --out FILE.csv` writes it. */
function asCsv(labels) {
  const rows = [["source", "status", "x1", "y1", "x2", "y2", "label", "score", ...labels]];
  for (const { source, status, faces } of results()) {
    for (const { box, label, score, probs } of faces.length ? faces : [{ probs: {}, label: "", score: "" }]) {
      rows.push([source, status, ...(box ?? ["", "", "", ""]), label, score, ...labels.map((name) => probs[name] ?? "")]);
    }
  }
  const cell = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}
