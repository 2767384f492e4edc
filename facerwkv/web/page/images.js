// Images: predict each, show its faces, overlay the deciding patches, save the results.

import { count, create, download, example, find, listed, percent } from "./elements.js";
import { announce, bytes, complain } from "./messages.js";
import { uprightBitmap } from "./orient.js";
import { ImagePanel, reduced, squareAround } from "./panel.js";
import { asCsv, asJson } from "./results.js";
import { patiently, upload } from "./service.js";

const [FOR, AGAINST] = ["214 47 39", "33 102 172"];
const TRIES = 3; // of a request, before a person is asked

const shown = []; // { file, panel, patches by method and label, failure: its result, retry: the button, waiting, leave }
let settings;
let work = Promise.resolve();

export function setUpImages(given) {
  settings = given;
  const { limits, methods, labels } = settings.meta;
  const most = `Up to ${count(limits.files, "image")} at once, ${bytes(limits.upload_bytes)} each`;
  find("image-limits").textContent = `${most}. They are gone when the page is reloaded.`;
  find("image-files").addEventListener("change", (event) => {
    addImages([...event.target.files]);
    event.target.value = "";
  });
  find("image-example").addEventListener("click", () => {
    example("page/example.jpg").then((file) => addImages([file]), (error) => complain(error.message));
  });
  find("patch-method").append(...methods.map((name) => create("option", { textContent: name })));
  find("patch-label").append(...labels.map((name) => create("option", { textContent: name })));
  find("patch-choice").hidden = methods.length === 0;
  for (const id of ["patches", "patch-method", "patch-label"]) find(id).addEventListener("change", patchesChanged);
  find("patch-opacity").addEventListener("input", () => shown.forEach(({ panel }) => panel.paint()));
  find("likeliest-first").addEventListener("change", (event) => {
    ImagePanel.likeliestFirst = event.target.checked;
    shown.forEach(({ panel, failure }) => failure || panel.showFaces());
  });
  find("images-json").addEventListener("click", () => download("facerwkv.json", asJson(results()), "application/json"));
  find("images-csv").addEventListener("click", () => download("facerwkv.csv", asCsv(results(), labels), "text/csv"));
  find("images-again").addEventListener("click", retryAll);
  find("images-clear").addEventListener("click", () => [...shown].forEach(remove));
  window.addEventListener("online", retryAll);
}

/** Predict images one after the other; each is shown at once, and its result when it arrives. */
export function addImages(files) {
  const videos = files.filter(({ type }) => type.startsWith("video/"));
  const images = files.filter((file) => !videos.includes(file));
  const { files: most } = settings.meta.limits;
  complain([
    videos.length && `${listed(videos)} is left out here: drop a video alone, or choose it in the tab Video.`,
    images.length > most && `These are ${images.length} images; the first ${most} are used.`,
  ].filter(Boolean).join(" "));
  const added = images.slice(0, most).map(add);
  for (const entry of added) enqueue(() => preview(entry));
  added.forEach(again);
  update();
}

function add(file) {
  const entry = { file, patches: {}, failure: null, leave: new AbortController() };
  const overlay = (...drawing) => paintPatches(entry, ...drawing);
  entry.panel = new ImagePanel(file.name, settings.meta, { overlay, onRemove: () => remove(entry) });
  entry.retry = entry.panel.button("Retry", `Retry ${file.name}`, () => again(entry), "");
  entry.panel.buttons.prepend(entry.retry);
  shown.push(entry);
  find("image-list").prepend(entry.panel.element);
  return entry;
}

/** Null where this browser cannot show the format. */
async function preview(entry) {
  if (!shown.includes(entry)) return;
  const bitmap = await uprightBitmap(entry.file).then(reduced).catch(() => null);
  if (shown.includes(entry)) entry.panel.preview(bitmap);
  else bitmap?.close();
}

/** Predict all images again, with the options that are chosen now. */
export function againImages() {
  shown.filter(({ failure, retry }) => !failure || !retry.hidden).forEach(again);
}

function retryAll() {
  shown.filter(({ retry }) => !retry.hidden).forEach(again);
}

/** Predict an image, after those that came before it. */
function again(entry) {
  if (entry.retry === document.activeElement) find("image-files").focus();
  entry.retry.hidden = true;
  entry.panel.element.setAttribute("aria-busy", "true");
  if (!entry.waiting) enqueue(() => predict(entry));
  entry.waiting = true;
}

function enqueue(job) {
  work = work.then(job);
}

async function predict(entry) {
  const { file, panel } = entry;
  if (!shown.includes(entry)) return;
  entry.waiting = false;
  panel.say("Looking …");
  try {
    const query = { mode: settings.mode, on_no_face: settings.onNoFace, threshold: settings.threshold };
    const { results } = await send(entry, "predict", { query, field: "files" });
    entry.patches = {};
    entry.failure = null;
    panel.show({ ...results[0], source: file.name }, panel.source);
    const spoken = results[0].faces.map((face) => `${face.label} ${percent(face.score)}`);
    announce(`${file.name}: ${[panel.found, ...spoken].join(", ")}`);
    if (find("patches").checked) await explain(entry);
  } catch (error) {
    if (shown.includes(entry)) failed(entry, error);
  }
  if (!entry.waiting) panel.element.removeAttribute("aria-busy");
  update();
}

/** One of the requests with an image as their body. */
function send({ file, panel, leave: { signal } }, path, options) {
  const { upload_bytes: most } = settings.meta.limits;
  if (file.size > most) throw new Error(`${file.name} is larger than ${bytes(most)}. Make it smaller first.`);
  const onProgress = (share) => panel.say(share < 1 ? `Uploading, ${percent(share)}` : "Looking …");
  const onWait = (error, seconds) => panel.say(`${error.message} Trying again in ${seconds} s.`);
  const attempt = () => upload(path, { ...options, file, signal, onProgress });
  return patiently(attempt, { signal, tries: TRIES, onWait });
}

function failed(entry, error) {
  const { panel, retry, file } = entry;
  complain(error.message);
  retry.hidden = !error.passing;
  if (panel.result) return; // an image with an earlier result keeps it
  entry.failure = { source: file.name, status: "unreadable", size: [0, 0], faces: [], message: error.message };
  panel.fail(error.message);
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
  const answer = await send(entry, "explain", { query, field: "file" });
  patches[key] = answer.explanations;
  panel.paint();
  const spoken = answer.explanations.map(({ label, prob }) => `${label} ${percent(prob)}`).join(", ");
  announce(`The patches that decided are shown for ${file.name}: ${spoken}`);
}

function remove(entry) {
  shown.splice(shown.indexOf(entry), 1);
  entry.leave.abort();
  entry.panel.remove(find("image-files"));
  update();
}

function update() {
  find("image-tools").hidden = shown.length === 0;
  find("images-again").hidden = shown.filter(({ retry }) => !retry.hidden).length < 2;
}

/** Also of the images that failed. */
function results() {
  return shown.map(({ panel, failure }) => panel.result ?? failure).filter(Boolean);
}
