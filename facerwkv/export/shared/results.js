// Results → files, as `facerwkv predict --out FILE.json` and FILE.csv write them.

/** One array. */
export function asJson(results) {
  return `[\n${results.map((result) => JSON.stringify(result)).join(",\n")}\n]\n`;
}

/** A row per face, and one for an image without: also for one that failed. */
export function asCsv(results, labels) {
  const unsure = results.some(({ faces }) => faces.some((face) => "unsure" in face)) ? ["unsure"] : [];
  const sides = ["x1", "y1", "x2", "y2"];
  const own = ["detection", "label", "score", ...unsure];
  const rows = [["source", "status", "width", "height", ...sides, ...own, ...labels]];
  for (const { source, status, size, faces } of results) {
    const known = size[0] ? size : Array(2);
    for (const face of faces.length ? faces : [{ probs: {} }]) {
      const values = own.map((name) => face[name]);
      rows.push([source, status, ...known, ...(face.box ?? Array(4)), ...values, ...labels.map((name) => face.probs[name])]);
    }
  }
  return rows.map((row) => `${Array.from(row, cell).join(",")}\n`).join("");
}

/** A spreadsheet computes what begins like a formula: an apostrophe makes it a text. */
function cell(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "string") return value ?? "";
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
