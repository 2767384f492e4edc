// A file, or a video's frame → its pixels, upright and opaque; in a page or a worker.

import { uprightBitmap } from "./orient.js";

/** A file's ImageBitmap: its EXIF rotation applied, its colours as they are stored, as Python reads them. */
export async function openImage(file, mostPixels) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await uprightBitmap(file, options);
  } catch {
    throw new Error(
      file.size
        ? "This browser cannot read it: it is damaged, or no image that browsers know. Try it as JPEG or PNG."
        : "The file is empty.",
    );
  }
  if (bitmap.width * bitmap.height <= mostPixels) return bitmap;
  const size = `${bitmap.width} x ${bitmap.height}`;
  bitmap.close();
  throw new Error(`It has ${size} pixels, more than the ${mostPixels.toLocaleString("en")} that are allowed.`);
}

/** ImageData of a bitmap; transparency lies over white. */
export function pixelsOf(source, width, height) {
  const brush = new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
  brush.fillStyle = "white";
  brush.fillRect(0, 0, width, height);
  brush.drawImage(source, 0, 0, width, height);
  return brush.getImageData(0, 0, width, height);
}
