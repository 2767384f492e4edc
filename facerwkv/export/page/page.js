// The page: images come in, one after the other is classified and shown.

import { card, summary } from "./about.js";
import { element } from "./elements.js";
import { loadModel } from "./model.js";
import { openImage, pixelsOf } from "./image.js";
import { article, failure } from "./results.js";

const part = (id) => document.getElementById(id);
const results = []; // as `facerwkv predict --json` gives them
let model;
let turn = Promise.resolve(); // images wait for each other
let waiting = 0;
let stream = null;

async function start() {
  listen();
  say("Loading the model…");
  try {
    model = await loadModel();
  } catch (error) {
    return say(`The model could not be loaded: ${error.message}`, true);
  }
  part("model").textContent = summary(model.meta);
  part("notice").textContent = model.meta.notice;
  part("about").append(...card(model.meta));
  part("about").hidden = false;
  part("camera").hidden = !navigator.mediaDevices; // browsers give it to https and to this computer's own pages alone
  part("files").disabled = part("camera").disabled = false;
  say("");
}

function listen() {
  part("files").addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = ""; // the same file may be chosen again
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      part("give").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  addEventListener("paste", (event) => take(event.clipboardData.files));
  part("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
  part("save").addEventListener("click", save);
  part("clear").addEventListener("click", clear);
}

function say(text, isError = false) {
  part("status").textContent = text;
  part("status").classList.toggle("error", isError);
}

function take(files) {
  if (!model) return;
  if (files.length && stream) stopCamera();
  for (const file of files) {
    waiting++;
    turn = turn.then(() => look(file));
  }
}

async function look(file) {
  say(`${file.name}… (${waiting} to go)`);
  await painted();
  try {
    await classify(file);
  } catch (error) {
    results.push({ source: file.name, status: "unreadable", faces: [], message: error.message });
    part("results").append(failure(file.name, error.message));
  }
  part("tools").hidden = false;
  waiting--;
  if (!waiting) say("");
}

async function classify(file) {
  const bitmap = await openImage(file, model.meta.most_pixels);
  const faces = await model.predict(pixelsOf(bitmap, bitmap.width, bitmap.height));
  part("results").append(article(file.name, bitmap, bitmap, faces, model.meta));
  bitmap.close();
  const found = faces.map(({ box, label, score, probs }) => ({ ...(box && { box }), label, score, probs }));
  results.push({ source: file.name, status: faces.length ? "ok" : "no_face", faces: found });
}

/** The model runs where the page does, so what was said must be on the screen before. */
function painted() {
  return new Promise((resolve) => setTimeout(resolve, 20));
}

async function startCamera() {
  part("camera").disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
    stream.getVideoTracks()[0].addEventListener("ended", stopCamera); // it was unplugged
    const video = element("video", { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    turn = turn.then(() => watch(video)).catch(failCamera);
    part("camera").textContent = "Stop camera";
    say("");
  } catch (error) {
    failCamera(error);
  }
  part("camera").disabled = false;
}

/** Frame after frame, as fast as they are classified. */
async function watch(video) {
  const own = stream;
  while (stream === own) {
    const size = { width: video.videoWidth, height: video.videoHeight };
    const faces = await model.predict(pixelsOf(video, size.width, size.height));
    part("live").replaceChildren(article("Camera", video, size, faces, model.meta));
    await painted();
  }
  part("live").replaceChildren();
}

function failCamera(error) {
  stopCamera();
  say(`The camera cannot be used: ${error.message}.`, true);
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  part("camera").textContent = "Start camera";
}

function save() {
  const lines = results.map((result) => JSON.stringify(result) + "\n");
  const address = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  element("a", { href: address, download: "results.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function clear() {
  results.length = 0;
  part("results").replaceChildren();
  part("tools").hidden = true;
}

await start();
