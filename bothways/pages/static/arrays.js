// Compressed arrays, as bothways/pages/arrays.py makes them: number = offset + step × level, levels of sixteen bits.

const MAX_KEPT_NUMBERS = 64e6; // 256 MB of float32

const sizeOf = ({ shape }) => shape.reduce((product, size) => product * size, 1);

async function decompress({ offset, step, data: base64 }) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < bytes.length; index += 1) bytes[index] = text.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer()); // all low bytes, then all high bytes
  const values = new Float32Array(planes.length / 2);
  for (let index = 0; index < values.length; index += 1) {
    values[index] = offset + step * (planes[index] | (planes[values.length + index] << 8));
  }
  return values;
}

/** A function from a compressed array to a promise of its numbers; the arrays used last are kept. */
export function createDecompressor(maxKeptNumbers) {
  const kept = new Map(); // its order is the order of last use
  let numKept = 0;
  return (compressed) => {
    const numbers = kept.get(compressed) ?? decompress(compressed);
    if (!kept.delete(compressed)) numKept += sizeOf(compressed);
    kept.set(compressed, numbers);
    for (const oldest of kept.keys()) {
      if (numKept <= maxKeptNumbers || oldest === compressed) break;
      kept.delete(oldest);
      numKept -= sizeOf(oldest);
    }
    return numbers;
  };
}

export const decompressArray = createDecompressor(MAX_KEPT_NUMBERS);
