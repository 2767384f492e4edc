// A video that was read: the player with its faces framed, beside the bars of one face, above a timeline of all.

import { bars, colourOf, drawFaces, fit } from "./draw.js";
import { create, find, percent } from "./elements.js";
import { clock } from "./messages.js";
import { thumbnail } from "./panel.js";
import { link } from "./service.js";
import { Timeline } from "./timeline.js";
import { byName, chips, likeliest, nameOf, tracksOf } from "./tracks.js";

const ROWS = 12; // of the timeline, until all are asked for
const PICTURES = 48; // of faces, the longest visible first
const TITLES = { "results.csv": "Download CSV", "results.json": "Download JSON", "drawn.mp4": "Download drawn MP4" };

const [player, overlay] = [find("video-player"), find("video-boxes")];
let settings, panel, timeline, showChips;
let shown = null; // job, results, tracks, rows, chosen, length, step, own: whether the player shows the file, url, begin, film

export function setUpViewer(given) {
  settings = given;
  const { labels, colours } = settings.meta;
  panel = bars(settings.meta);
  find("video-bars").append(panel.element);
  showChips = chips(find("video-chips"), settings.meta, choose);
  timeline = new Timeline(find("timeline"), colours, (time, number) => {
    if (number !== undefined) choose(number);
    seek(time);
  });
  find("video-legend").append(...labels.map((label) => {
    const swatch = create("span", { className: "swatch" });
    swatch.style.backgroundColor = colourOf(settings.meta, label);
    return create("li", {}, swatch, label);
  }));
  find("video-frames").addEventListener("change", follow);
  find("video-all").addEventListener("click", () => showRows(shown.tracks));
  player.addEventListener("error", () => shown?.own && playDrawn());
  for (const name of ["timeupdate", "seeking", "seeked", "loadedmetadata"]) player.addEventListener(name, follow);
  player.addEventListener("play", run);
  new ResizeObserver(follow).observe(player);
}

/** Show the results of a job; `file` is the video, if this page still has it, and `begin` the start that was asked for:
 * the drawn one starts with the first frame from there. */
export function view(job, results, file, begin) {
  close();
  const read = results.filter(({ status }) => status !== "unreadable");
  const tracks = tracksOf(read, settings.meta.labels);
  const length = Math.max(job.seconds ?? 0, read.at(-1)?.time ?? 0);
  const url = file && URL.createObjectURL(file);
  shown = { job, results: read, tracks, length, step: stepOf(read), own: Boolean(file), url };
  shown.begin = begin && (read[0]?.time ?? begin);
  find("video-title").textContent = job.source;
  find("video-result").hidden = false;
  find("video-downloads").replaceChildren(...job.files.map((name) => create("a", {
    className: "button", href: link(`jobs/${job.id}/${name}`), download: "", textContent: TITLES[name] ?? name,
  })));
  showRows(tracks.slice(0, ROWS));
  choose(tracks[0]?.number ?? null);
  if (file) play(url);
  else playDrawn();
  find("timeline").focus();
  return { frames: read.length, faces: tracks.length };
}

/** Show nothing; what was shown stays with the service. */
export function close() {
  if (!shown) return;
  const { url, film } = shown;
  shown = null;
  letGo(player);
  if (film) letGo(film);
  if (url) URL.revokeObjectURL(url);
  showChips([], null);
  find("video-result").hidden = true;
}

/** Ask for no more of a film: it may be gone from the service in a moment. */
function letGo(film) {
  film.removeAttribute("src");
  film.load();
}

/** The id of the job that is shown. */
export const viewed = () => shown?.job.id;

/** The usual time between two frames that were looked at. */
function stepOf(results) {
  const steps = results.slice(1).map(({ time }, i) => time - results[i].time).sort((a, b) => a - b);
  return steps[steps.length >> 1] || 1;
}

/** The browser cannot play the file, or lost it: the service's own, with its faces drawn, takes its place. */
function playDrawn() {
  shown.own = false;
  if (shown.job.files.includes("drawn.mp4")) play(link(`jobs/${shown.job.id}/drawn.mp4`));
}

function play(address) {
  find("video-framing").hidden = !shown.own; // in the drawn video the frames are part of its images
  player.src = address;
  player.currentTime = shown.own ? shown.begin : 0;
  addThumbnails(shown, address).catch(() => {}); // this browser cannot play it: the chips have colours
}

/** Put on each chip its face where it is largest, from a second player that nobody sees. */
async function addThumbnails(own, address) {
  const film = create("video", { muted: true, preload: "auto", src: address });
  own.film = film;
  const happens = (name) => new Promise((resolve, reject) => {
    film.addEventListener(name, resolve, { once: true });
    film.addEventListener("error", reject, { once: true });
  });
  const current = () => shown === own && player.src === address;
  await happens("loadeddata");
  for (const track of own.tracks.slice(0, PICTURES)) {
    if (!current()) break;
    const sought = happens("seeked");
    film.currentTime = track.best.time - lead() + 1e-3;
    await sought;
    if (!current()) break;
    track.picture = thumbnail(film, track.best.box, [film.videoWidth, film.videoHeight]);
    showAll();
  }
  letGo(film);
}

function showRows(tracks) {
  shown.rows = tracks;
  find("video-tracks").classList.toggle("few", tracks.length < 3);
  find("video-all").hidden = tracks.length === shown.tracks.length;
  find("video-all").textContent = `Show all ${shown.tracks.length} faces`;
  timeline.show(tracks, shown.length, shown.step);
  showAll();
}

function choose(number) {
  shown.chosen = number;
  showAll();
  follow();
}

/** The chips and rows, with the chosen one standing out. */
function showAll() {
  showChips(shown.rows.map(chipOf), shown.chosen);
  timeline.choose(shown.chosen);
}

function chipOf({ number, points, picture }) {
  const { labels } = settings.meta;
  const length = Math.min(shown.length, points.length * shown.step).toFixed(1);
  const sums = labels.map((_, i) => points.reduce((sum, { probs }) => sum + probs[i], 0));
  return { number, picture, label: likeliest(sums, labels), text: `${nameOf(number)}, ${length} s` };
}

function seek(time) {
  player.currentTime = Math.max(0, time - lead());
  follow();
}

/** The seconds of the video that the player's lacks at its beginning. */
const lead = () => (shown.own ? 0 : shown.begin);

function run() {
  follow();
  if (!player.paused) requestAnimationFrame(run);
}

/** Everything that depends on the player's time. */
function follow() {
  if (!shown) return;
  const time = player.currentTime + lead();
  const { labels } = settings.meta;
  const point = at(shown.tracks.find(({ number }) => number === shown.chosen)?.points ?? [], time);
  const label = point && likeliest(point.probs, labels);
  const said = point ? `${label} ${percent(Math.max(...point.probs))}${point.unsure ? ", unsure" : ""}` : "not visible";
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
