// A video: choose, upload, follow its job to the end.

import { count, create, find, listed, percent } from "./elements.js";
import { announce, bytes, complain } from "./messages.js";
import { askJson, patiently, rest, upload } from "./service.js";
import { beginOf, forget, list, putDown, remember, remembered } from "./videos.js";
import { close, setUpViewer, view, viewed } from "./viewer.js";

const PAUSE = 400; // milliseconds between two looks at a job
const TRIES = 3; // of an upload, before a person is asked

let settings;
let file = null;
let running = null; // the AbortController of what is uploaded or read

export function setUpVideo(given) {
  settings = given;
  setUpViewer(settings);
  const { video_bytes: most, kept_seconds: kept } = settings.meta.limits;
  find("video-limits").textContent = `Up to ${bytes(most)}. The results are kept for ${count(Math.round(kept / 60), "minute")}.`;
  find("video-file").addEventListener("change", ({ target: { files } }) => files.length && chooseVideo([...files]));
  find("video-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (file) analyse();
  });
  find("video-cancel").addEventListener("click", () => running?.abort());
  find("video-another").addEventListener("click", putAway);
  find("video-remove").addEventListener("click", async () => {
    const id = viewed();
    putAway();
    await forget(id);
    showForm();
  });
  if (remembered()) resume(remembered());
  else showForm();
}

/** Take a video that was chosen or dropped; it is uploaded when the person says so. */
export function chooseVideo([chosen, ...others]) {
  const { video_bytes: most } = settings.meta.limits;
  complain(others.length ? `One video at a time: ${chosen.name} is taken, ${listed(others)} left out.` : "");
  if (running) return complain(`One video at a time: ${chosen.name} is left out. Wait for the other, or cancel it.`);
  if (chosen.size > most) return complain(`${chosen.name} is larger than ${bytes(most)}. Cut it or make it smaller first.`);
  if (viewed()) putAway();
  file = chosen;
  find("video-name").replaceChildren(create("b", { textContent: file.name }), ` ${bytes(file.size)}`);
  find("video-submit").textContent = "Analyse the video";
  find("video-submit").disabled = false;
  find("video-submit").focus();
}

/** Back to the form; what was shown is in the list. */
function putAway() {
  close();
  putDown();
  unchoose();
  showForm();
  find("video-file").focus();
}

function unchoose() {
  file = null;
  find("video-form").reset();
  find("video-name").replaceChildren(create("b", { textContent: "Choose a video" }), " or drop it here");
  find("video-submit").disabled = true;
}

function showForm() {
  find("video-form").hidden = Boolean(viewed());
  find("videos").hidden = true;
  if (!viewed()) list(resume);
}

async function analyse() {
  const names = ["start", "end", "stride", "fps", "smooth"];
  const chosen = Object.fromEntries(names.map((name) => [name, find(`video-${name}`).value.trim()]));
  const { mode, onNoFace: on_no_face, threshold } = settings;
  const query = { ...chosen, mode, on_no_face, threshold };
  let sent = 0;
  const onProgress = (share) => showProgress(`Uploading, ${percent(sent = share)}`, share);
  showProgress("Uploading", 0);
  const attempt = (signal) => upload("jobs", { query, field: "file", file, signal, onProgress });
  await work(async (signal) => {
    try {
      const job = await patiently(() => attempt(signal), { signal, tries: TRIES, onWait: waiting });
      remember(job.id, seconds(chosen.start));
      return job;
    } catch (error) {
      if (!error.passing) throw error;
      find("video-submit").textContent = "Upload again";
      throw new Error(`The upload broke off at ${percent(sent)}. ${error.message} The video is still chosen.`);
    }
  });
}

/** Seconds of 90.5, 1:30.5 or 0:01:30.5, which the service has accepted. */
const seconds = (text) => text.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);

const waiting = (error, pause) => showProgress(`${error.message} Trying again in ${pause} s.`, null);

/** Follow a video that was uploaded earlier. */
function resume(id) {
  unchoose();
  remember(id);
  showProgress("Looking for the video", null);
  return work((signal) => look(id, signal));
}

/** Follow the job that `begin` gives to its end. Only Cancel removes it: after anything else it can be shown again. */
async function work(begin) {
  complain("");
  find("videos").hidden = true;
  running = new AbortController();
  const { signal } = running;
  let job = null;
  const ended = () => job && !["queued", "running"].includes(job.state);
  try {
    for (job = await begin(signal); !ended(); job = await look(job.id, signal)) {
      showProgress(...progressOf(job));
      await rest(PAUSE, signal);
    }
    if (job.files.includes("results.json")) await show(job, signal);
    else putDown();
    if (job.message) complain(job.message);
  } catch (error) {
    if (error.name === "AbortError") {
      if (job && !ended()) await forget(job.id);
      putDown();
      announce("Cancelled.");
    } else {
      if (error.status === 404) putDown(); // it is not there any more
      complain(error.message);
    }
  }
  running = null;
  find("video-progress").hidden = true;
  showForm();
  if (!viewed()) find(file ? "video-submit" : "video-file").focus();
}

const look = (id, signal) => patiently(() => askJson(`jobs/${id}`, { signal }), { signal, onWait: waiting });

function progressOf({ state, progress, frames, fps }) {
  if (state === "queued") return ["Waiting for its turn", null];
  const rate = fps ? `, ${fps.toFixed(1)} per second` : "";
  return [`Reading: ${count(frames ?? 0, "frame")}${rate}`, progress];
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

async function show(job, signal) {
  const results = await patiently(() => askJson(`jobs/${job.id}/results.json`, { signal }), { signal, onWait: waiting });
  const { frames, faces } = view(job, results, file, beginOf(job.id));
  announce(`${job.source} is read: ${count(frames, "frame")}, ${count(faces, "face")}.`);
}
