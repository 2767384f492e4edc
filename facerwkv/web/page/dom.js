// Elements, messages, numbers as text, downloads.

export const find = (id) => document.getElementById(id);

/** A new element; what is no child is a property, or an attribute where its name has a dash. */
export function create(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const message = find("message");
message.querySelector("button").addEventListener("click", () => complain(""));

/** Show what went wrong; "" takes it away. */
export function complain(text) {
  message.classList.toggle("shown", Boolean(text));
  message.querySelector("button").hidden = !text;
  message.querySelector("p").textContent = text;
}

/** Tell those who listen to the page what happened. */
export function announce(text) {
  find("status").textContent = text;
}

export const percent = (share) => `${Math.round(share * 100)}%`;
export const count = (number, thing) => `${number.toLocaleString("en")} ${thing}${number === 1 ? "" : "s"}`;

export function bytes(number) {
  const mebi = number / 2 ** 20;
  return mebi >= 1024 ? `${+(mebi / 1024).toFixed(1)} GiB` : `${+mebi.toFixed(mebi < 10 ? 1 : 0)} MiB`;
}

/** Seconds as 1:05.3. */
export function clock(seconds, digits = 1) {
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds - 60 * minutes).toFixed(digits);
  return `${minutes}:${rest.padStart(digits ? digits + 3 : 2, "0")}`;
}

/** Hand a text over as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  create("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
