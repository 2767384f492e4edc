// The camera: one frame on its way at a time, the faces over the live image, bars for the chosen one.

import { bars, drawFaces, fit } from "./draw.js";
import { create, find, percent } from "./elements.js";
import { announce, complain } from "./messages.js";
import { rest, socket } from "./service.js";
import { area, byName, chips, drawStack, Exponential, likeliest, nameOf, WHOLE } from "./tracks.js";

const SENT_SIDE = 640; // pixels of the longer side of a frame that is sent
const HISTORY = 20; // seconds
const REFUSED = {
  NotAllowedError: "The browser may not use the camera. Allow it beside the address, then start the camera again.",
  NotFoundError: "No camera was found. Connect one, then start it again.",
  NotReadableError: "The camera cannot be opened. Close the other program that uses it, then start it again.",
};
const CLOSED = {
  1009: "The camera's frames are larger than the service accepts.",
  1013: "The service's limit of cameras is reached. Close another page that uses one, then start the camera again.",
};
const LOST = "The connection to the service ended. Start the camera again.";
const TRIES = 6; // connections without a result, one second longer apart each time

const [video, overlay, button] = [find("camera-video"), find("camera-boxes"), find("camera-switch")];
const still = create("canvas");
let settings, panel, showChips;
let live = null; // what belongs to the camera that is on: media, socket, tries, smooth, points, times, chosen, mirrored

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
  document.addEventListener("visibilitychange", () => live && (document.hidden ? pause("Paused") : connect(live)));
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
    live = { media, tries: 0, smooth: new Map(), points: new Map(), times: [], chosen: null };
    media.getVideoTracks()[0].addEventListener("ended", () => {
      if (live?.media !== media) return;
      stopCamera();
      complain("The camera was disconnected. Connect it, then start it again.");
    });
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

/** Open a connection, unless the page is hidden: then no frame would come, and the service would close it. */
function connect(own) {
  if (own !== live || document.hidden) return;
  const opened = new WebSocket(socket({ mode: settings.mode }));
  own.socket = opened;
  const current = () => own === live && own.socket === opened;
  opened.addEventListener("open", () => current() && video.requestVideoFrameCallback(() => send(own, opened)));
  opened.addEventListener("message", (event) => {
    if (!current()) return;
    own.tries = 0;
    show(JSON.parse(event.data));
    video.requestVideoFrameCallback(() => send(own, opened));
  });
  opened.addEventListener("close", (event) => current() && reconnect(own, event));
}

async function reconnect(own, { code }) {
  pause("Reconnecting");
  if (code in CLOSED || ++own.tries > TRIES) {
    stopCamera();
    complain(CLOSED[code] ?? LOST);
    return;
  }
  await rest(1000 * own.tries);
  if (!own.socket) connect(own);
}

/** Let go of the connection, but not of the camera. */
function pause(why) {
  const { socket } = live;
  Object.assign(live, { socket: null, times: [], chosen: null });
  for (const each of [live.smooth, live.points]) each.clear(); // the service's clock and faces start anew
  socket?.close();
  find("camera-rate").textContent = why;
}

function send(own, opened) {
  if (own.socket !== opened) return;
  const share = Math.min(1, SENT_SIDE / Math.max(video.videoWidth, video.videoHeight));
  [still.width, still.height] = [Math.round(video.videoWidth * share), Math.round(video.videoHeight * share)];
  still.getContext("2d").drawImage(video, 0, 0, still.width, still.height);
  const post = (blob) => opened.readyState === WebSocket.OPEN && opened.send(blob);
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
  find("camera-nobody").hidden = true;
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
  find("camera-nobody").hidden = faces.length > 0;
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
  const score = Math.max(...probs);
  const unsure = score < settings.threshold;
  return { ...face, number, label: likeliest(probs, labels), score, unsure, probs: byName(probs, labels) };
}

function forget(now) {
  for (const [number, points] of live.points) {
    while (points.length && points[0].time < now - HISTORY) points.shift();
    if (!points.length) live.points.delete(number), live.smooth.delete(number);
  }
}

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
