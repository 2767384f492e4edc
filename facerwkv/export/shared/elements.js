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

/** Names as a person reads them: the first three, and how many more there are. */
export function listed(files) {
  const names = files.slice(0, 3).map(({ name }) => name);
  return files.length > 3 ? `${names.join(", ")} and ${files.length - 3} more` : names.join(", ");
}

/** Save a text or a Blob as a file. */
export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  create("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The example that comes with the page, as a file: four rendered people, so nobody's rights are in it. */
export async function example(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`The example is missing here (${answer.status}).`);
  return new File([await answer.blob()], "example.jpg", { type: "image/jpeg" });
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
