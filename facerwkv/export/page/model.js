// The model and the face detector, run by onnxruntime-web on this computer.

import { findFaces } from "./faces.js";
import { openImage, pixelsOf } from "./image.js";
import { env, InferenceSession, Tensor } from "./ort.wasm.min.mjs";
import { reduced } from "./panel.js";
import { toInput } from "./transform.js";
import { rollOf, upright } from "./upright.js";

env.wasm.numThreads = 1; // more need headers that a plain static server does not send

/** All that is loaded is loaded here: { meta, look }. `look` takes a file or an ImageBitmap, and gives its faces, its
 * size and a bitmap to draw it. */
export async function loadModel() {
  const meta = await (await load("meta.json")).json();
  const model = await session("model.onnx");
  const detector = meta.detector && (await session("yunet.onnx"));
  const look = async (image) => {
    const bitmap = image instanceof ImageBitmap ? image : await openImage(image, meta.most_pixels);
    const size = [bitmap.width, bitmap.height];
    return { faces: await predict(pixelsOf(bitmap, ...size), meta, model, detector), size, bitmap: await reduced(bitmap) };
  };
  return { meta, look };
}

/** The faces of an image, or the whole image with box null: a list of { box, detection, label, score, probs }. */
async function predict(image, meta, model, detector) {
  const found = detector ? await findFaces(image, detector, meta.detector) : [{ box: null, score: null }];
  const faces = [];
  for (const face of found) {
    const { box, score } = face;
    const aligned = detector && meta.transform.crop !== "both";
    const degrees = aligned ? await rollOf(image, face, detector, meta.detector) : 0;
    const shown = degrees ? upright(image, box, degrees) : { image, box };
    faces.push({ box, detection: score, ...(await classify(toInput(shown.image, shown.box, meta.transform), meta, model)) });
  }
  return faces;
}

async function classify(input, { labels, input: { name, shape }, temperature }, model) {
  const { logits } = await model.run({ [name]: new Tensor("uint8", input, [1, ...shape.slice(1)]) });
  const values = softmax(Array.from(logits.data, (logit) => logit / temperature));
  const likeliest = values.indexOf(Math.max(...values));
  const probs = Object.fromEntries(labels.map((label, i) => [label, values[i]]));
  return { label: labels[likeliest], score: values[likeliest], probs };
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

async function session(name) {
  const bytes = await (await load(name)).arrayBuffer();
  return InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

async function load(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} is missing here (${response.status}). Copy the whole exported folder.`);
  return response;
}
