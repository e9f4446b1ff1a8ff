// A vector tile of a slide's nuclei: u32 n, u32 p, n u32 ids, n u8 classes, padding to 4, n + 1 u32 offsets,
// p pairs of i16 (x, y) in 1/8 px of the tile; little-endian, as the machines are that browsers run on.

export interface OutlineTile {
  ids: Uint32Array;
  classes: Uint8Array;
  offsets: Uint32Array;
  coords: Int16Array; // x0, y0, x1, y1, ... in 1/8 px of the tile
}

export const UNIT = 8;

/** Reads a tile. Throws an Error for one that is cut short or has offsets that lead out of it. */
export function readOutlineTile(bytes: ArrayBuffer): OutlineTile {
  if (bytes.byteLength < 8) throw new Error("a tile of outlines is cut short");
  const [count, points] = new Uint32Array(bytes, 0, 2) as unknown as [number, number];
  const classesAt = 8 + 4 * count;
  const offsetsAt = Math.ceil((classesAt + count) / 4) * 4;
  const coordsAt = offsetsAt + 4 * (count + 1);
  if (bytes.byteLength < coordsAt + 4 * points) throw new Error("a tile of outlines is cut short");
  const offsets = new Uint32Array(bytes, offsetsAt, count + 1);
  for (let i = 0; i < count; i++) {
    if (offsets[i]! > offsets[i + 1]! || offsets[i + 1]! > points) throw new Error("a tile of outlines is damaged");
  }
  return {
    ids: new Uint32Array(bytes, 8, count),
    classes: new Uint8Array(bytes, classesAt, count),
    offsets,
    coords: new Int16Array(bytes, coordsAt, 2 * points),
  };
}
