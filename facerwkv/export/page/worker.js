// The model in a thread of its own, so that the page stays alive while it computes.

import { loadModel } from "./model.js";

const model = loadModel();
model.then(({ meta }) => postMessage({ meta }), ({ message }) => postMessage({ error: message }));

onmessage = async ({ data: { id, image } }) => {
  try {
    const found = await (await model).look(image);
    postMessage({ id, found }, [found.bitmap]);
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
