// The page: images come in, are classified one after the other, and shown.

import { card } from "./card.js";
import { create, download, example, find, receiveFiles } from "./elements.js";
import { uprightBitmap } from "./orient.js";
import { ImagePanel, reduced } from "./panel.js";
import { asCsv, asJson } from "./results.js";
import { openModel } from "./thread.js";

const shown = []; // { panel, result }, the newest last
let model;
let turn = Promise.resolve(); // images wait for each other
let waiting = 0;
let stream = null;

async function start() {
  receiveFiles(take, find("files"));
  say("Loading the model…");
  try {
    model = await openModel();
  } catch (error) {
    return say(`The model could not be loaded: ${error.message}`, true);
  }
  const { meta } = model;
  find("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  find("example").addEventListener("click", () => {
    example("example.jpg").then((file) => take([file]), (error) => say(error.message, true));
  });
  find("json").addEventListener("click", () => download("facerwkv.json", asJson(results()), "application/json"));
  find("csv").addEventListener("click", () => download("facerwkv.csv", asCsv(results(), meta.labels), "text/csv"));
  find("clear").addEventListener("click", () => [...shown].forEach(remove));
  find("likeliest-first").addEventListener("change", (event) => {
    ImagePanel.likeliestFirst = event.target.checked;
    shown.forEach(({ panel }) => panel.showFaces());
  });
  find("model-name").textContent = meta.name;
  find("model-licence").textContent = String(meta.licence ?? "no licence stated").split(":")[0];
  find("card-body").append(...card(meta));
  find("card").hidden = false;
  find("camera").hidden = !navigator.mediaDevices; // browsers give it to https and to this computer's own pages alone
  for (const id of ["files", "example", "camera"]) find(id).disabled = false;
  say("");
}

function say(text, isError = false) {
  find("status").textContent = text;
  find("status").classList.toggle("error", isError);
}

function take(files) {
  if (!model) return;
  if (files.length && stream) stopCamera();
  waiting += files.length;
  for (const file of files) {
    const entry = { result: null };
    entry.panel = new ImagePanel(file.name, model.meta, { onRemove: () => remove(entry) });
    entry.panel.element.setAttribute("aria-busy", "true");
    shown.push(entry);
    find("results").prepend(entry.panel.element);
    turn = turn.then(() => preview(file, entry));
    turn = turn.then(() => look(file, entry));
  }
  find("tools").hidden = shown.length === 0;
}

async function preview(file, { panel }) {
  panel.preview(await uprightBitmap(file).then(reduced).catch(() => null));
}

async function look(file, entry) {
  waiting--;
  if (!shown.includes(entry)) return;
  const { panel } = entry;
  panel.say("Looking …");
  say(waiting ? `${file.name}… (${waiting} more to go)` : `${file.name}…`);
  try {
    const { bitmap, ...result } = await predict(file.name, file);
    entry.result = result;
    panel.show(result, bitmap);
  } catch (error) {
    entry.result = { source: file.name, status: "unreadable", size: [0, 0], faces: [], message: error.message };
    panel.fail(error.message);
  }
  panel.element.removeAttribute("aria-busy");
  if (!waiting) say("");
}

async function predict(source, image) {
  const { faces, size, bitmap } = await model.look(image);
  const plain = faces.map(({ box, detection, ...face }) => ({ ...(box && { box, detection }), ...face }));
  return { source, status: faces.length ? "ok" : "no_face", size, faces: plain, bitmap };
}

async function startCamera() {
  find("camera").disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", stopCamera); // it was unplugged
    const video = create("video", { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    const mirrored = track.getSettings().facingMode !== "environment";
    turn = turn.then(() => watch(video, mirrored)).catch(failCamera);
    find("camera").textContent = "Stop camera";
    say("");
  } catch (error) {
    failCamera(error);
  }
  find("camera").disabled = false;
}

/** Frame after frame, as fast as they are classified, while the page is seen. */
async function watch(video, mirrored) {
  const [own, panel] = [stream, new ImagePanel("Camera", model.meta)];
  find("live").replaceChildren(panel.element);
  while (stream === own) {
    await new Promise((resolve) => requestAnimationFrame(resolve)); // never on a hidden page
    if (stream !== own) break;
    const { bitmap, ...result } = await predict("Camera", await createImageBitmap(video));
    if (stream === own) panel.show(...(mirrored ? mirror(result, bitmap) : [result, bitmap]));
  }
  find("live").replaceChildren();
}

/** As a mirror shows it: a result and its image. */
function mirror(result, bitmap) {
  const canvas = create("canvas", { width: bitmap.width, height: bitmap.height });
  const pen = canvas.getContext("2d");
  pen.scale(-1, 1);
  pen.drawImage(bitmap, -bitmap.width, 0);
  bitmap.close();
  const [wide] = result.size;
  const faces = result.faces.map(({ box, ...face }) => {
    return box ? { box: [wide - box[2], box[1], wide - box[0], box[3]], ...face } : face;
  });
  return [{ ...result, faces }, canvas];
}

function failCamera(error) {
  stopCamera();
  say(`The camera cannot be used: ${error.message}.`, true);
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find("camera").textContent = "Start camera";
}

const results = () => shown.map(({ result }) => result).filter(Boolean);

function remove(entry) {
  shown.splice(shown.indexOf(entry), 1);
  entry.panel.remove(find("files"));
  find("tools").hidden = shown.length === 0;
}

await start();
