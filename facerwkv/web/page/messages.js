// Messages, sizes and times as text.

import { find } from "./elements.js";

const message = find("message");
message.querySelector("button").addEventListener("click", () => complain(""));

/** Show what went wrong; "" hides it. */
export function complain(text) {
  message.classList.toggle("shown", Boolean(text));
  message.querySelector("button").hidden = !text;
  message.querySelector("p").textContent = text;
}

/** Tell screen readers what happened. */
export function announce(text) {
  find("status").textContent = text;
}

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
