// The camera: one frame on its way at a time, the faces over the live image, bars for the chosen one.

import { bars, drawFaces, fit } from "./draw.js";
import { create, find, percent } from "./elements.js";
import { announce, complain } from "./messages.js";
import { socket } from "./service.js";
import { byName, chips, drawStack, Exponential, likeliest, nameOf, WHOLE } from "./tracks.js";

const SENT_SIDE = 640; // pixels of the longer side of a frame that is sent
const HISTORY = 20; // seconds
const REFUSED = {
  NotAllowedError: "The browser may not use the camera. Allow it beside the address, then start the camera again.",
  NotFoundError: "No camera was found. Connect one, then start it again.",
  NotReadableError: "The camera cannot be opened. Close the other program that uses it, then start it again.",
};
const CLOSED = {
  1001: "No image came from the camera for too long. Start it again.",
  1009: "The camera's frames are larger than the service accepts.",
  1013: "The service's limit of cameras is reached. Close another page that uses one, then start the camera again.",
};
const LOST = "The connection to the service ended. Start the camera again.";

const [video, overlay, button] = [find("camera-video"), find("camera-boxes"), find("camera-switch")];
const still = create("canvas");
let settings, panel, showChips;
let live = null; // what belongs to the camera that is on: media, socket, smooth, points, times, chosen, mirrored

export function setUpCamera(given) {
  settings = given;
  panel = bars(settings.meta);
  find("camera-bars").append(panel.element);
  showChips = chips(find("camera-chips"), settings.meta, (number) => live && (live.chosen = number));
  button.addEventListener("click", () => (live ? stopCamera() : start()));
  find("camera-device").addEventListener("change", restart);
  find("camera-smooth").addEventListener("input", (event) => {
    find("camera-smooth-text").value = +event.target.value ? percent(event.target.value / 100) : "off";
  });
  new ResizeObserver(() => fit(overlay, video.clientWidth, video.clientHeight)).observe(video);
}

/** Restart in the mode that is chosen now, if the camera is on. */
export function againCamera() {
  if (live) restart();
}

function restart() {
  stopCamera();
  start();
}

async function start() {
  complain("");
  if (!navigator.mediaDevices) {
    complain("Browsers allow the camera only on pages of this computer or over https. Open the page there.");
    return;
  }
  button.disabled = true;
  try {
    const media = await openCamera();
    live = { media, smooth: new Map(), points: new Map(), times: [], chosen: null };
    live.mirrored = media.getVideoTracks()[0].getSettings().facingMode !== "environment";
    if (find("camera").hidden) stopCamera(); // another tab was opened before the browser said yes
    else await follow(live);
  } catch (error) {
    stopCamera();
    complain(REFUSED[error.name] ?? `The camera cannot be started: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

async function openCamera() {
  const device = find("camera-device").value;
  const wanted = { width: { ideal: 1280 }, ...(device && { deviceId: { exact: device } }) };
  return navigator.mediaDevices.getUserMedia({ video: wanted });
}

async function follow(own) {
  showState();
  video.srcObject = own.media;
  await listDevices(own);
  if (own === live) connect(own);
}

function connect(own) {
  own.socket = new WebSocket(socket({ mode: settings.mode }));
  own.socket.addEventListener("open", () => video.requestVideoFrameCallback(() => send(own)));
  own.socket.addEventListener("message", (event) => {
    if (own !== live) return;
    show(JSON.parse(event.data));
    video.requestVideoFrameCallback(() => send(own));
  });
  own.socket.addEventListener("close", (event) => {
    if (own !== live) return;
    stopCamera();
    complain(CLOSED[event.code] ?? LOST);
  });
}

function send(own) {
  if (own !== live) return;
  const share = Math.min(1, SENT_SIDE / Math.max(video.videoWidth, video.videoHeight));
  [still.width, still.height] = [Math.round(video.videoWidth * share), Math.round(video.videoHeight * share)];
  still.getContext("2d").drawImage(video, 0, 0, still.width, still.height);
  const post = (blob) => own === live && own.socket.readyState === WebSocket.OPEN && own.socket.send(blob);
  still.toBlob(post, "image/jpeg", 0.9);
}

/** Turn the camera off; nothing happens if it is. */
export function stopCamera() {
  if (!live) return;
  const own = live;
  live = null;
  own.socket?.close();
  own.media.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  fit(overlay, video.clientWidth, video.clientHeight);
  showChips([], null);
  panel.show(null);
  showState();
}

function showState() {
  button.textContent = live ? "Stop camera" : "Start camera";
  button.classList.toggle("primary", !live);
  find("camera-stage").classList.toggle("on", Boolean(live));
  video.classList.toggle("mirrored", Boolean(live?.mirrored));
  find("camera-empty").hidden = Boolean(live);
  find("camera-rate").hidden = !live;
  find("camera-rate").textContent = "";
  find("camera-history").hidden = !live;
  announce(live ? "The camera is on." : "The camera is off.");
}

async function listDevices(own) {
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const current = own.media.getVideoTracks()[0].getSettings().deviceId;
  find("camera-choice").hidden = cameras.length < 2;
  find("camera-device").replaceChildren(...cameras.map(({ deviceId, label }, i) => create("option", {
    value: deviceId, textContent: label || `Camera ${i + 1}`, selected: deviceId === current,
  })));
}

function show(result) {
  if (result.status === "unreadable") {
    complain(result.message);
    return;
  }
  const { labels } = settings.meta;
  const amount = find("camera-smooth").value / 100;
  const faces = result.faces.map((face) => smoothFace(face, result.time, labels, amount));
  forget(result.time);
  showRate();
  showFaces(faces, result.size);
  const chosen = faces.find((face) => face.number === live.chosen) ?? largest(faces);
  showChips(faces.map(({ number, label }) => ({ number, label, text: nameOf(number) })), chosen?.number);
  panel.show(chosen?.probs ?? null);
  showHistory(live.points.get(chosen?.number) ?? [], result.time);
}

function smoothFace(face, time, labels, amount) {
  const number = face.track ?? WHOLE;
  const smooth = live.smooth.get(number) ?? live.smooth.set(number, new Exponential()).get(number);
  const probs = smooth.next(labels.map((label) => face.probs[label]), amount);
  const points = live.points.get(number) ?? live.points.set(number, []).get(number);
  points.push({ time, probs });
  return { ...face, number, label: likeliest(probs, labels), score: Math.max(...probs), probs: byName(probs, labels) };
}

function forget(now) {
  for (const [number, points] of live.points) {
    while (points.length && points[0].time < now - HISTORY) points.shift();
    if (!points.length) live.points.delete(number), live.smooth.delete(number);
  }
}

const area = ({ box }) => (box ? (box[2] - box[0]) * (box[3] - box[1]) : 0);
const largest = (faces) => faces.toSorted((a, b) => area(b) - area(a))[0];

function showRate() {
  const now = performance.now();
  live.times = [...live.times, now].filter((time) => now - time < 3000);
  const took = (now - live.times[0]) / 1000;
  const rate = took ? ((live.times.length - 1) / took).toFixed(1) : "–";
  find("camera-rate").textContent = `${rate} frames per second`;
}

function showFaces(faces, [wide, tall]) {
  const bounds = { width: video.clientWidth, height: video.clientHeight };
  const pen = fit(overlay, bounds.width, bounds.height);
  const [across, down] = [bounds.width / wide, bounds.height / tall];
  const toPixels = ([x1, y1, x2, y2]) => [
    live.mirrored ? bounds.width - x2 * across : x1 * across, y1 * down, (x2 - x1) * across, (y2 - y1) * down,
  ];
  drawFaces(pen, faces, settings.meta, toPixels, faces.map(({ number }) => number || ""), bounds);
}

function showHistory(points, now) {
  const canvas = find("camera-history").querySelector("canvas");
  const [width, height] = [find("camera-history").clientWidth, 64];
  const pen = fit(canvas, width, height);
  drawStack(pen, { width, height, points, colours: settings.meta.colours, from: now - HISTORY, to: now, step: 0.5 });
}
