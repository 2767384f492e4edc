// The model's card: what it is, its licence, its data, its scores, what it is for.

import { create, find } from "./dom.js";

const SCORES = { accuracy: "Accuracy", uar: "Unweighted average recall", macro_f1: "Macro-F1" };
const SPLITS = ["test", "val"]; // the first that was scored is shown

export function showCard(meta) {
  const [kind] = (meta.licence ?? "no licence stated").split(":");
  find("model-name").textContent = meta.name;
  find("model-licence").textContent = kind;
  find("model-licence").title = meta.notice ?? "";
  for (const id of ["model-name", "model-licence"]) find(id).hidden = false;
  find("version").textContent = `FaceRWKV ${meta.version}`;
  const scored = SPLITS.map((split) => meta.card?.metrics?.[split]).find(Boolean);
  find("card-body").append(facts(meta), ...(scored ? scores(scored) : []));
}

function facts(meta) {
  const rows = [
    ["Model", `${meta.name}, looks at ${meta.mode === "face" ? "faces" : "whole images"}`],
    ["Labels", meta.labels.join(", ")],
    ["Trained on", trainedOn(meta.card?.data)],
    ["Licence", meta.notice ?? meta.licence],
    ["Intended use", meta.intended_use],
  ];
  const there = rows.filter(([, text]) => text);
  return create("dl", {}, ...there.flatMap(([name, text]) => [
    create("dt", { textContent: name }), create("dd", { textContent: text }),
  ]));
}

function trainedOn(data) {
  if (!data?.source) return "";
  const counts = Object.entries(data.images ?? {}).map(([split, number]) => `${number.toLocaleString("en")} ${split}`);
  return `${data.source}: ${counts.join(", ")} images`;
}

function scores(scored) {
  const share = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}%`);
  const known = Object.entries(SCORES).filter(([name]) => scored[name]);
  const overall = known.map(([name, title]) => {
    const { value, low, high } = scored[name];
    return [title, `${share(value)} (${share(low)} to ${share(high)})`];
  });
  const classes = Object.entries(scored.per_class ?? {}).map(([label, row]) => [
    label, share(row.precision), share(row.recall), share(row.f1), row.support.toLocaleString("en"),
  ]);
  const title = `Scores on ${scored.n.toLocaleString("en")} images of ${scored.source}, ${scored.split}`;
  return [
    create("h2", { textContent: title }),
    create("div", { className: "scores" },
      table(["Score", "Value (95% interval)"], overall),
      table(["Label", "Precision", "Recall", "F1", "Images"], classes)),
  ];
}

function table(head, rows) {
  const line = ([first, ...others]) => create("tr", {},
    create("th", { textContent: first, scope: "row" }), ...others.map((text) => create("td", { textContent: text })));
  const top = create("tr", {}, ...head.map((text) => create("th", { textContent: text, scope: "col" })));
  const whole = create("table", {}, create("thead", {}, top), create("tbody", {}, ...rows.map(line)));
  return create("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": head.join(", ") }, whole);
}
