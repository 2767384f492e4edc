// A file → its ImageBitmap, upright. Browsers turn a JPEG as its EXIF says, but not every browser a WebP.

const ORIENTATION = 0x0112;
const TURNS = { // EXIF orientation → canvas transform of an image w wide and h high
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

export async function uprightBitmap(file, options = {}) {
  const turn = TURNS[await webpOrientation(file)];
  const bitmap = await createImageBitmap(file, { ...options, imageOrientation: turn ? "none" : "from-image" });
  if (!turn) return bitmap;
  const matrix = turn(bitmap.width, bitmap.height);
  const [width, height] = matrix[0] ? [bitmap.width, bitmap.height] : [bitmap.height, bitmap.width];
  const canvas = new OffscreenCanvas(width, height);
  const brush = canvas.getContext("2d");
  brush.setTransform(...matrix);
  brush.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}

/** The EXIF orientation in a WebP file's chunks; 1 in any other file. */
async function webpOrientation(file) {
  const read = async (start, length) => new DataView(await file.slice(start, start + length).arrayBuffer());
  const head = await read(0, 12);
  if (name(head, 0) !== "RIFF" || name(head, 8) !== "WEBP") return 1;
  for (let at = 12; at + 8 <= file.size; ) {
    const chunk = await read(at, 8);
    const size = chunk.getUint32(4, true);
    if (name(chunk, 0) === "EXIF") return orientationOf(await read(at + 8, size));
    at += 8 + size + (size % 2);
  }
  return 1;
}

/** Of EXIF data: a TIFF header, "Exif" before it or not, and its first directory. */
function orientationOf(exif) {
  try {
    const start = name(exif, 0) === "Exif" ? 6 : 0;
    const little = exif.getUint16(start) === 0x4949;
    const directory = start + exif.getUint32(start + 4, little);
    for (let i = 0; i < exif.getUint16(directory, little); i++) {
      const entry = directory + 2 + 12 * i;
      if (exif.getUint16(entry, little) === ORIENTATION) return exif.getUint16(entry + 8, little);
    }
  } catch {
    // cut short or damaged: as in Python, that must not cost the image
  }
  return 1;
}

function name(view, at) {
  return view.byteLength < at + 4 ? "" : String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
}
