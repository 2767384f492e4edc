// The service's interface: every request of the page goes through here.

const token = new URLSearchParams(location.search).get("token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};

const SILENT = "The service does not answer. Check that facerwkv serve is still running, then try again.";

/** What went wrong, as a sentence for a person. */
export class ServiceError extends Error {}

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
  } catch {
    throw new ServiceError(SILENT);
  }
  if (!answer.ok) throw new ServiceError(sentence(await answer.text(), answer.status));
  return answer;
}

export const askJson = async (path, options) => (await ask(path, options)).json();

/** A form of one file. */
export function form(field, file) {
  const body = new FormData();
  body.append(field, file, file.name);
  return body;
}

/** Send a large file and hear how far it is; `signal` stops it. */
export function upload(path, { query, field, file, signal, onProgress }) {
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("POST", address(path, query));
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(new ServiceError(sentence(request.responseText, request.status)));
    };
    request.onerror = () => reject(new ServiceError(SILENT));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form(field, file));
  });
}

function sentence(text, status) {
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === "string") return detail;
  } catch {
    // An answer that is not the service's own has no sentence.
  }
  return `The service answered with the error ${status}.`;
}
