// The service's interface: every request of the page goes through here.

const token = new URLSearchParams(location.search).get("token");
const headers = { "Client-Id": clientId(), ...(token && { Authorization: `Bearer ${token}` }) };

const SILENT = "The service does not answer. Check that facerwkv serve is still running, and the network.";
const [SHORTEST, LONGEST] = [500, 10_000]; // milliseconds between two attempts

/** This browser's own text, by which the service tells its videos from others'. */
function clientId() {
  const key = "facerwkv-client";
  const made = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  const id = localStorage.getItem(key) ?? made().join("");
  localStorage.setItem(key, id);
  return id;
}

/** What went wrong, as a sentence for a person. */
export class ServiceError extends Error {
  /** `status` is 0 where no answer came; `after` are the seconds that the service asks to wait, if it does. */
  constructor(sentence, status = 0, after = null) {
    super(sentence);
    const passing = [0, 502, 503, 504].includes(status) || (status === 429 && after !== null);
    Object.assign(this, { status, after, passing }); // passing: the same request may succeed later
  }
}

/** The address of a part of the service; options that are empty are left out. */
export function address(path, query = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== "" && value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url.href;
}

/** An address for players and downloads, which send no headers. */
export const link = (path) => address(path, { token });

/** The address of the stream of frames. */
export const socket = (query) => address("stream", { ...query, token }).replace(/^http/, "ws");

/** A request, and its answer if that is a good one. ServiceError says why not. */
export async function ask(path, { query, ...options } = {}) {
  let answer;
  try {
    answer = await fetch(address(path, query), { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServiceError(SILENT);
  }
  if (!answer.ok) throw refusal(await answer.text(), answer.status, answer.headers.get("Retry-After"));
  return answer;
}

export const askJson = async (path, options) => (await ask(path, options)).json();

/** Send a file in a form's `field`, and hear which share of it is sent; `signal` stops it. What is answered. */
export async function upload(path, { query, field, file, signal, onProgress }) {
  await readable(file);
  const request = new XMLHttpRequest();
  const body = new FormData();
  body.append(field, file, file.name);
  return new Promise((resolve, reject) => {
    const stop = () => request.abort();
    request.open("POST", address(path, query));
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress?.(event.loaded / event.total);
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.responseText, request.status, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new ServiceError(SILENT));
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal?.removeEventListener("abort", stop);
    signal?.throwIfAborted();
    signal?.addEventListener("abort", stop);
    request.send(body);
  });
}

/** Repeat what fails for a passing reason, `tries` times; `onWait` hears the reason and the seconds until then. */
export async function patiently(attempt, { signal, tries = Infinity, onWait } = {}) {
  for (let done = 1; ; done++) {
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (!error.passing || done >= tries) throw error;
      const growing = Math.min(LONGEST, SHORTEST * 2 ** (done - 1)) * (0.75 + Math.random() / 2);
      const pause = error.after === null ? growing : 1000 * error.after;
      onWait?.(error, Math.ceil(pause / 1000));
      await rest(pause, signal);
    }
  }
}

/** Wait, at most until the network is there again. */
export function rest(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      window.removeEventListener("online", end);
      signal?.removeEventListener("abort", end);
      if (signal?.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, milliseconds);
    window.addEventListener("online", end);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}

/** A folder, or a file that has gone since it was chosen, would look like a service that does not answer. */
async function readable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error(`${file.name} cannot be read: it is a folder, or it was moved or changed. Choose it again.`);
  }
}

function refusal(text, status, after) {
  const seconds = after === null ? null : Number(after) || Math.max(0, (Date.parse(after) - Date.now()) / 1000) || 0;
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === "string") return new ServiceError(detail, status, seconds);
  } catch {
    // An answer that is not the service's own has no sentence.
  }
  return new ServiceError(`The service answered with the error ${status}.`, status, seconds);
}
