// HTML elements in one call. Text is always text: nothing that a file or a model says becomes HTML.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)}%`;
}
