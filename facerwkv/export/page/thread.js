// The model, in a worker where the page may start one, or else in the page.

/** { meta, look }: see loadModel. */
export async function openModel() {
  const worker = await startWorker();
  if (worker === null) return (await import("./model.js")).loadModel();
  const { meta, error } = worker.first;
  if (error) throw new Error(error);
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data: { id, found, error: reason } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (reason) reject(new Error(reason));
    else resolve(found);
  };
  const look = (image) => new Promise((resolve, reject) => {
    waiting.set(++count, { resolve, reject });
    worker.postMessage({ id: count, image }, image instanceof ImageBitmap ? [image] : []);
  });
  return { meta, look };
}

/** A worker that has said its first word, or null: the server's Content-Security-Policy may forbid it. */
function startWorker() {
  return new Promise((resolve) => {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.onerror = (event) => (event.preventDefault(), resolve(null));
    worker.onmessage = ({ data }) => resolve(Object.assign(worker, { first: data }));
  }).catch(() => null);
}
