// What is known of the model, from meta.json: the facts of its card.

import { element, percent } from "./elements.js";

const SCORES = { accuracy: "Accuracy", uar: "Unweighted average recall", macro_f1: "Macro-F1" };
const LOOKS = { scene: "the whole image", face: "every face", both: "every face and what is around it" };
const SHARES = ["precision", "recall", "f1"];

/** One line: its name, how many labels it has, its licence in a word or two. */
export function summary(meta) {
  const [kind] = (meta.licence ?? "unknown").split(":");
  return `Model ${title(meta)}, ${meta.labels.length} expressions. Licence of its weights: ${kind}.`;
}

/** Elements to show below a heading. */
export function card(meta) {
  const { data = {}, metrics = {}, weaknesses = [] } = meta.card;
  const scored = metrics.test ?? metrics.val;
  const facts = { Model: title(meta), Expressions: meta.labels.join(", "), Looks: looks(meta.transform) };
  if (data.source) facts["Trained on"] = `${data.source}${counts(data.images)}`;
  facts["Licence of the weights"] = meta.licence ?? "unknown";
  facts["Computed by"] = meta.runtime;
  const known = scored ? scores(scored) : [element("p", {}, "It was never scored on a data set.")];
  return [list(facts), ...known, ...weaknesses.map((text) => element("p", {}, text))];
}

function title({ card, model }) {
  return card.name ?? model;
}

function looks({ crop, image_size: [height, width], in_chans }) {
  return `at ${LOOKS[crop]}, in ${in_chans === 1 ? "grey" : "colour"}, ${width} x ${height} pixels`;
}

function counts(images = {}) {
  const each = Object.entries(images).map(([split, count]) => `${count.toLocaleString("en")} ${split}`);
  return each.length ? `: ${each.join(", ")} images` : "";
}

function scores(scored) {
  const facts = {};
  for (const [name, title] of Object.entries(SCORES)) {
    const { value, low, high } = scored[name] ?? {};
    if (value != null) facts[title] = `${percent(value, 1)} (95% interval: ${percent(low, 1)} to ${percent(high, 1)})`;
  }
  const of = `${scored.n.toLocaleString("en")} images of ${scored.source}, ${scored.split}`;
  return [element("h3", {}, `Scores on ${of}`), list(facts), element("div", { className: "wide" }, classes(scored))];
}

function classes({ per_class: rows }) {
  const cells = (tag, texts) => texts.map((text) => element(tag, {}, text));
  const head = element("tr", {}, ...cells("th", ["expression", "precision", "recall", "F1", "images"]));
  const body = Object.entries(rows).map(([label, row]) => {
    const shares = SHARES.map((name) => (row[name] == null ? "–" : percent(row[name], 1)));
    return element("tr", {}, element("th", {}, label), ...cells("td", [...shares, row.support.toLocaleString("en")]));
  });
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function list(facts) {
  const lines = Object.entries(facts).map(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]);
  return element("dl", {}, ...lines.flat());
}
