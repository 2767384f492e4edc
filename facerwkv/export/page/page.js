// The page: images come in, are classified one after the other, and shown.

import { card } from "./card.js";
import { create, download, find, percent, receiveFiles } from "./elements.js";
import { openImage, pixelsOf } from "./image.js";
import { loadModel } from "./model.js";
import { ImagePanel, reduced } from "./panel.js";

const results = []; // as `facerwkv predict --json` gives them
let model;
let turn = Promise.resolve(); // images wait for each other
let waiting = 0;
let stream = null;

async function start() {
  receiveFiles(take, find("files"));
  say("Loading the model…");
  try {
    model = await loadModel();
  } catch (error) {
    return say(`The model could not be loaded: ${error.message}`, true);
  }
  find("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  find("save").addEventListener("click", save);
  find("clear").addEventListener("click", clear);
  find("model-name").textContent = model.meta.name;
  find("model-licence").textContent = (model.meta.licence ?? "no licence stated").split(":")[0];
  find("card-body").append(...card(model.meta));
  find("card").hidden = false;
  find("camera").hidden = !navigator.mediaDevices; // browsers give it to https and to this computer's own pages alone
  find("files").disabled = find("camera").disabled = false;
  say("");
}

function say(text, isError = false) {
  find("status").textContent = text;
  find("status").classList.toggle("error", isError);
}

/** The model runs where the page does, so what was said must be on the screen before. */
const painted = () => new Promise((resolve) => setTimeout(resolve, 20));

const titleOf = ({ label, score }, i, { length }) => [
  length > 1 ? `${i + 1} ` : "", create("b", { textContent: label }), ` ${percent(score)}`,
];

function take(files) {
  if (!model) return;
  if (files.length && stream) stopCamera();
  waiting += files.length;
  for (const file of files) turn = turn.then(() => look(file));
}

async function look(file) {
  say(`${file.name}… (${waiting} to go)`);
  await painted();
  const panel = new ImagePanel(file.name, model.meta, titleOf);
  try {
    const bitmap = await openImage(file, model.meta.most_pixels);
    const result = await predict(file.name, bitmap, bitmap.width, bitmap.height);
    panel.show(result, await reduced(bitmap));
    results.push(result);
  } catch (error) {
    panel.fail(error.message);
    results.push({ source: file.name, status: "unreadable", size: [0, 0], faces: [], message: error.message });
  }
  find("results").append(panel.element);
  find("tools").hidden = false;
  waiting--;
  if (!waiting) say("");
}

async function predict(source, image, width, height) {
  const found = await model.predict(pixelsOf(image, width, height));
  const faces = found.map(({ box, detection, ...face }) => ({ ...(box && { box, detection }), ...face }));
  return { source, status: faces.length ? "ok" : "no_face", size: [width, height], faces };
}

async function startCamera() {
  find("camera").disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
    stream.getVideoTracks()[0].addEventListener("ended", stopCamera); // it was unplugged
    const video = create("video", { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    turn = turn.then(() => watch(video)).catch(failCamera);
    find("camera").textContent = "Stop camera";
    say("");
  } catch (error) {
    failCamera(error);
  }
  find("camera").disabled = false;
}

/** Frame after frame, as fast as they are classified. */
async function watch(video) {
  const [own, panel] = [stream, new ImagePanel("Camera", model.meta, titleOf)];
  find("live").replaceChildren(panel.element);
  while (stream === own) {
    const result = await predict("Camera", video, video.videoWidth, video.videoHeight);
    if (stream === own) panel.show(result, video);
    await painted();
  }
  find("live").replaceChildren();
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

function save() {
  download("results.jsonl", results.map((result) => `${JSON.stringify(result)}\n`).join(""), "application/jsonl");
}

function clear() {
  results.length = 0;
  find("results").replaceChildren();
  find("tools").hidden = true;
}

await start();
