// HTML elements, numbers as text, files in and out. Text stays text: nothing that a file or a model says becomes HTML.

export const find = (id) => document.getElementById(id);

/** A new element; properties whose names have a dash are attributes. */
export function create(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** Save a text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  create("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Call `take` with the files that are dropped on the page or pasted, or chosen with an input. */
export function receiveFiles(take, input = null) {
  const drag = (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", event.type === "dragover" || Boolean(event.relatedTarget));
    if (event.type === "drop") take([...event.dataTransfer.files]);
  };
  for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, drag);
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  input?.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // the same file may be chosen again
  });
}
