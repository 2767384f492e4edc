// The model's card: what it is, its licence, its data, its scores, what it is for.

import { create, percent } from "./elements.js";

const LOOKS = { scene: "the whole image", face: "every face", both: "every face and the scene around it" };
const SPLITS = ["test", "val"]; // the first that was scored is shown

/** What there is of a value that should be an object: somebody else's checkpoint may hold anything. */
const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const number = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : "–");

/** The elements of a card, with what is known. `meta.scores` are the titles and formats of facerwkv/core/metrics.py. */
export function card(meta) {
  const { data, metrics, weaknesses } = object(meta.card);
  const { crop, in_chans: channels, image_size: [height, width] } = meta.transform;
  const { source, images } = object(data);
  const counts = Object.entries(object(images)).map(([split, images]) => `${number(images)} ${split}`);
  const looks = `${LOOKS[crop]}, in ${channels === 1 ? "grey" : "colour"}, ${width} x ${height} pixels`;
  const rows = [
    ["Model", `${meta.name}, looks at ${looks}`],
    ["Labels", meta.labels.join(", ")],
    ["Trained on", source && (counts.length ? `${source}: ${counts.join(", ")} images` : source)],
    ["Licence", meta.notice ?? meta.licence ?? "unknown"],
    ["Intended use", meta.intended_use],
    ["Computed by", meta.runtime],
    ...(Array.isArray(weaknesses) ? weaknesses : []).map((text) => ["Weakness", text]),
  ].filter(([, text]) => text);
  const nodes = rows.flatMap(([name, text]) => [
    create("dt", { textContent: name }), create("dd", { textContent: text }),
  ]);
  const scored = SPLITS.map((split) => object(metrics)[split]).find((split) => Object.keys(object(split)).length);
  const never = create("p", { className: "hint", textContent: "It was never scored on a data set." });
  return [create("dl", {}, ...nodes), ...(scored ? scores(scored, meta.scores) : [never])];
}

function scores(scored, formats) {
  const text = (value, { percent: share, digits }) =>
    !Number.isFinite(value) ? "–" : share ? percent(value, digits) : value.toFixed(digits);
  const overall = Object.entries(formats).filter(([name]) => scored[name]).map(([name, format]) => {
    const [value, low, high] = ["value", "low", "high"].map((key) => text(object(scored[name])[key], format));
    return [format.title, `${value} (${low} to ${high})`];
  });
  const classes = Object.entries(object(scored.per_class)).map(([label, row]) => {
    const shares = ["precision", "recall", "f1"].map((name) => text(object(row)[name], { percent: true, digits: 1 }));
    return [label, ...shares, number(object(row).support)];
  });
  const where = [scored.source, scored.split].filter(Boolean).join(", ") || "an unnamed data set";
  const title = `Scores on ${number(scored.n)} images of ${where}`;
  const tables = [
    table(["Score", "Value (95% interval)"], overall),
    table(["Label", "Precision", "Recall", "F1", "Images"], classes),
  ];
  return [create("h2", { textContent: title }), create("div", { className: "scores" }, ...tables)];
}

function table(head, rows) {
  const line = ([first, ...others]) => create("tr", {},
    create("th", { textContent: first, scope: "row" }), ...others.map((text) => create("td", { textContent: text })));
  const top = create("tr", {}, ...head.map((text) => create("th", { textContent: text, scope: "col" })));
  const whole = create("table", {}, create("thead", {}, top), create("tbody", {}, ...rows.map(line)));
  return create("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": head.join(", ") }, whole);
}
