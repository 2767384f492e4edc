// A video: choose, upload, follow its job, then a player beside its timeline.

import { bars, colourOf, drawFaces, fit } from "./draw.js";
import { count, create, find, percent } from "./elements.js";
import { announce, bytes, clock, complain } from "./messages.js";
import { ask, askJson, link, upload } from "./service.js";
import { Timeline } from "./timeline.js";
import { byName, chips, likeliest, nameOf, smoothed, tracksOf } from "./tracks.js";

const PAUSE = 400; // milliseconds between two looks at a job
const REMEMBERED = "facerwkv-video"; // in the tab's own storage, until it is closed
const TITLES = { "results.csv": "Download CSV", "results.json": "Download JSON", "drawn.mp4": "Download drawn MP4" };

const [player, overlay] = [find("video-player"), find("video-boxes")];
let settings, panel, timeline, showChips;
let file = null;
let running = null; // the AbortController of what is uploaded or read
let shown = null; // what is shown: job, results, tracks, points of the chosen one, step, whether the player shows `file`

export function setUpVideo(given) {
  settings = given;
  const { limits, labels, colours } = settings.meta;
  panel = bars(settings.meta);
  find("video-bars").append(panel.element);
  showChips = chips(find("video-chips"), settings.meta, choose);
  timeline = new Timeline(find("timeline"), colours, seek);
  find("video-limits").textContent = `Up to ${bytes(limits.video_bytes)}`;
  find("video-legend").append(...labels.map((label) => {
    const swatch = create("span", { className: "swatch" });
    swatch.style.backgroundColor = colourOf(settings.meta, label);
    return create("li", {}, swatch, label);
  }));
  listen();
}

function listen() {
  find("video-file").addEventListener("change", (event) => event.target.files[0] && chooseVideo(event.target.files[0]));
  find("video-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (file) analyse();
  });
  find("video-cancel").addEventListener("click", () => running?.abort());
  find("video-remove").addEventListener("click", removeVideo);
  find("video-frames").addEventListener("change", follow);
  find("video-smooth").addEventListener("input", (event) => {
    find("video-smooth-text").value = +event.target.value ? percent(event.target.value / 100) : "off";
    choose(shown.chosen);
  });
  player.addEventListener("error", () => shown?.own && playDrawn());
  for (const name of ["timeupdate", "seeking", "seeked", "loadedmetadata"]) player.addEventListener(name, follow);
  player.addEventListener("play", run);
  new ResizeObserver(follow).observe(player);
}

/** Take a video that was chosen or dropped; it is uploaded when the person says so. */
export async function chooseVideo(chosen) {
  complain("");
  const { video_bytes: most } = settings.meta.limits;
  if (chosen.size > most) {
    complain(`${chosen.name} is larger than ${bytes(most)}. Cut it or make it smaller first.`);
    return;
  }
  if (running) {
    complain("One video at a time: wait for this one, or cancel it.");
    return;
  }
  if (shown) await removeVideo();
  file = chosen;
  find("video-name").replaceChildren(create("b", { textContent: file.name }), ` ${bytes(file.size)}`);
  find("video-start").disabled = false;
  find("video-start").focus();
}

function analyse() {
  const [stride, fps] = [find("video-stride").value, find("video-fps").value];
  const query = { stride, fps, mode: settings.mode, on_no_face: settings.onNoFace };
  const onProgress = (share) => showProgress(`Uploading, ${percent(share)}`, share);
  showProgress("Uploading", 0);
  return work((signal) => upload("jobs", { query, field: "file", file, signal, onProgress }));
}

/** The id of the video that was here before the page was reloaded. */
export const remembered = () => sessionStorage.getItem(REMEMBERED);

/** Resume the video that was here before the page was reloaded. */
export function resume() {
  const id = remembered();
  sessionStorage.removeItem(REMEMBERED); // should it be gone, that is said once
  showProgress("Looking for the video", null);
  return work(() => askJson(`jobs/${id}`));
}

/** Follow a job to its end; `begin` gives it. */
async function work(begin) {
  complain("");
  running = new AbortController();
  const { signal } = running;
  let job = null;
  try {
    job = await begin(signal);
    sessionStorage.setItem(REMEMBERED, job.id);
    job = await finished(job, signal);
    if (job.files.includes("results.json")) await showJob(job);
    else await forget(job);
    if (job.message) complain(job.message);
  } catch (error) {
    if (job) await forget(job).catch(() => {});
    if (error.name === "AbortError") announce("Cancelled.");
    else complain(error.message);
  }
  running = null;
  find("video-progress").hidden = true;
  find("video-form").hidden = Boolean(shown);
  if (!shown) find(file ? "video-start" : "video-file").focus();
}

/** Look at a job until it ends. */
async function finished(job, signal) {
  while (["queued", "running"].includes(job.state)) {
    showProgress(...progressOf(job));
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    signal.throwIfAborted();
    job = await askJson(`jobs/${job.id}`);
  }
  return job;
}

function progressOf({ state, progress, frames, fps }) {
  if (state === "queued") return ["Waiting for its turn", null];
  const rate = fps ? `, ${fps.toFixed(1)} per second` : "";
  return [`Reading: ${count(frames ?? 0, "frame")}${rate}`, progress];
}

function forget(job) {
  sessionStorage.removeItem(REMEMBERED);
  return ask(`jobs/${job.id}`, { method: "DELETE", keepalive: true });
}

function showProgress(text, share) {
  find("video-form").hidden = true;
  if (find("video-progress").hidden) {
    find("video-progress").hidden = false;
    find("video-cancel").focus();
    announce("The video is being read.");
  }
  find("video-state").textContent = text;
  if (share === null || share === undefined) find("video-bar").removeAttribute("value");
  else find("video-bar").value = share;
}

async function showJob(job) {
  const results = (await askJson(`jobs/${job.id}/results.json`)).filter(({ status }) => status !== "unreadable");
  const tracks = tracksOf(results, settings.meta.labels);
  const length = Math.max(job.seconds ?? 0, results.at(-1)?.time ?? 0);
  const url = file && URL.createObjectURL(file);
  shown = { job, results, tracks, length, step: stepOf(results), own: Boolean(file), url };
  find("video-frames").disabled = false;
  if (file) player.src = url;
  else playDrawn();
  find("video-title").textContent = job.source;
  find("video-result").hidden = false;
  find("video-downloads").replaceChildren(...job.files.map((name) => create("a", {
    className: "button", href: link(`jobs/${job.id}/${name}`), download: "", textContent: TITLES[name],
  })));
  choose(tracks[0]?.number ?? null);
  announce(`${job.source} is read: ${count(results.length, "frame")}, ${count(tracks.length, "face")}.`);
  find("timeline").focus();
}

/** The usual time between two frames that were looked at. */
function stepOf(results) {
  const steps = results.slice(1).map(({ time }, i) => time - results[i].time).sort((a, b) => a - b);
  return steps[steps.length >> 1] || 1;
}

/** The browser cannot play the file, or lost it: the service's own, with its faces drawn, takes its place. */
function playDrawn() {
  shown.own = false;
  find("video-frames").disabled = true; // they are part of its images
  if (shown.job.files.includes("drawn.mp4")) player.src = link(`jobs/${shown.job.id}/drawn.mp4`);
}

function choose(number) {
  const { labels } = settings.meta;
  const track = shown.tracks.find((each) => each.number === number);
  shown.chosen = number;
  shown.points = smoothed(track?.points ?? [], find("video-smooth").value / 100);
  showChips(shown.tracks.map((each) => chipOf(each, labels)), number);
  timeline.show(shown.points, shown.length, shown.step);
  follow();
}

function chipOf({ number, points }, labels) {
  const length = Math.min(shown.length, points.length * shown.step).toFixed(1);
  const sums = labels.map((_, i) => points.reduce((sum, { probs }) => sum + probs[i], 0));
  return { number, label: likeliest(sums, labels), text: `${nameOf(number)}, ${length} s` };
}

function seek(time) {
  player.currentTime = time;
  follow();
}

function run() {
  follow();
  if (!player.paused) requestAnimationFrame(run);
}

/** Everything that depends on the player's time. */
function follow() {
  if (!shown) return;
  const time = player.currentTime;
  const { labels } = settings.meta;
  const point = at(shown.points, time);
  const label = point && likeliest(point.probs, labels);
  const said = point ? `${label} ${percent(Math.max(...point.probs))}` : "not visible";
  const text = shown.chosen === null ? "No face was found in any frame."
    : `${clock(time)}  ${nameOf(shown.chosen)}: ${said}`;
  find("video-moment").textContent = text;
  panel.show(point ? byName(point.probs, labels) : null);
  timeline.move(time, text);
  paintFaces(time);
}

/** The last of what has a time that is not later than `time`, unless it is long over. */
function at(all, time) {
  let [low, high] = [0, all.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (all[middle].time <= time + 1e-3) low = middle + 1;
    else high = middle;
  }
  const found = all[low - 1];
  return found && time - found.time <= 2.5 * shown.step ? found : null;
}

function paintFaces(time) {
  const bounds = { width: player.clientWidth, height: player.clientHeight };
  const pen = fit(overlay, bounds.width, bounds.height);
  const faces = at(shown.results, time)?.faces ?? [];
  if (!shown.own || !player.videoWidth || !find("video-frames").checked) return;
  const [wide, tall] = [player.videoWidth, player.videoHeight];
  const scale = Math.min(bounds.width / wide, bounds.height / tall);
  const [left, top] = [(bounds.width - wide * scale) / 2, (bounds.height - tall * scale) / 2];
  const toPixels = ([x1, y1, x2, y2]) => [left + x1 * scale, top + y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale];
  drawFaces(pen, faces, settings.meta, toPixels, faces.map(({ track }) => track ?? ""), bounds);
}

async function removeVideo() {
  const { job, url } = shown;
  shown = null;
  file = null;
  player.removeAttribute("src");
  player.load();
  if (url) URL.revokeObjectURL(url);
  showChips([], null);
  find("video-result").hidden = true;
  find("video-form").hidden = false;
  find("video-form").reset();
  find("video-name").replaceChildren(create("b", { textContent: "Choose a video" }), " or drop it here");
  find("video-start").disabled = true;
  find("video-file").focus();
  await forget(job).catch((error) => complain(error.message));
}
