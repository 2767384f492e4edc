// This browser's videos that the service still has: which they are, and a list of them.

import { count, create, find, percent } from "./elements.js";
import { complain } from "./messages.js";
import { ask, askJson, patiently } from "./service.js";

const CURRENT = "facerwkv-video"; // in the tab's storage: the id of the one that is read or shown
const BEGINS = "facerwkv-begins"; // in the browser's: where the drawn videos begin, in seconds, by id
const TRIES = 3;

const begins = () => JSON.parse(localStorage.getItem(BEGINS) ?? "{}");

/** The id of the video that was here before the page was reloaded. */
export const remembered = () => sessionStorage.getItem(CURRENT);

/** Where the drawn video of a job begins, in seconds. */
export const beginOf = (id) => begins()[id] ?? 0;

/** Keep a job's id, and where its drawn video begins. */
export function remember(id, begin = beginOf(id)) {
  sessionStorage.setItem(CURRENT, id);
  localStorage.setItem(BEGINS, JSON.stringify({ ...begins(), [id]: begin }));
}

/** None is read or shown now. */
export const putDown = () => sessionStorage.removeItem(CURRENT);

/** Remove a video from the service. It stays in the list where that fails. */
export async function forget(id) {
  try {
    await patiently(() => ask(`jobs/${id}`, { method: "DELETE", keepalive: true }), { tries: TRIES });
  } catch (error) {
    if (error.status !== 404) complain(error.message);
  }
}

/** Show this browser's videos; `open` is called with the id of the one that a person chose. */
export async function list(open) {
  try {
    const { jobs } = await patiently(() => askJson("jobs"), { tries: TRIES });
    const own = jobs.map(({ id }) => [id, beginOf(id)]);
    localStorage.setItem(BEGINS, JSON.stringify(Object.fromEntries(own)));
    show(jobs.map((job) => row(job, open)));
  } catch (error) {
    complain(error.message);
  }
}

function show(rows) {
  find("videos").hidden = rows.length === 0 || find("video-form").hidden;
  find("video-list").replaceChildren(...rows);
}

function row(job, open) {
  const button = (text, className, onClick) => {
    const made = create("button", { type: "button", className, textContent: text, "aria-label": `${text} ${job.source}` });
    made.addEventListener("click", onClick);
    return made;
  };
  const state = create("span", { className: "hint", textContent: stateOf(job) });
  const item = create("li", {}, create("b", { textContent: job.source || "A video" }), state);
  if (job.state !== "failed") item.append(button("Show", "", () => open(job.id)));
  item.append(button("Remove", "plain", async () => {
    await forget(job.id);
    await list(open);
    find("video-file").focus();
  }));
  return item;
}

function stateOf({ state, frames, progress, message }) {
  if (state === "failed") return message;
  if (state === "done") return count(frames, "frame");
  return state === "queued" ? "waiting for its turn" : `being read${progress ? `, ${percent(progress)}` : ""}`;
}
