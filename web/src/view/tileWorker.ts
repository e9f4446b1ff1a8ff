// Draws tiles of nuclei in a thread of its own: thousands of outlines take longer than the image may stand still.
import { readOutlineTile, UNIT, type OutlineTile } from "../logic/outlineTile";

/** A tile to draw: lengths in px of the level, `window` the one that is left out. */
export interface TileOrder {
  id: number;
  url: string;
  outlines: boolean;
  left: number;
  top: number;
  width: number;
  height: number;
  margin: readonly [number, number]; // px that the tile reaches to the left and to the top of its place
  window: readonly [number, number, number, number]; // left, top, right, bottom
  colors: readonly string[]; // by class number, 0 for none
}

export type TileAnswer = { id: number; bitmap: ImageBitmap } | { id: number; error: string };

const CASED = 2500; // nuclei of a tile up to which each gets a dark line around
const waiting = new Map<number, AbortController>();

addEventListener("message", ({ data }: MessageEvent<TileOrder | { stop: number }>) => {
  if ("stop" in data) waiting.get(data.stop)?.abort();
  else void make(data);
});

async function make(order: TileOrder): Promise<void> {
  const stop = new AbortController();
  waiting.set(order.id, stop);
  try {
    const response = await fetch(order.url, { signal: stop.signal });
    if (!response.ok) throw new Error(`${order.url}: ${response.status}`);
    const canvas = new OffscreenCanvas(order.width, order.height);
    const pen = canvas.getContext("2d")!;
    pen.translate(...order.margin);
    if (order.outlines) draw(pen, readOutlineTile(await response.arrayBuffer()), order);
    else pen.drawImage(await createImageBitmap(await response.blob()), 0, 0);
    const bitmap = canvas.transferToImageBitmap();
    postMessage({ id: order.id, bitmap } satisfies TileAnswer, { transfer: [bitmap] });
  } catch (error) {
    postMessage({ id: order.id, error: error instanceof Error ? error.message : String(error) } satisfies TileAnswer);
  } finally {
    waiting.delete(order.id);
  }
}

function draw(pen: OffscreenCanvasRenderingContext2D, tile: OutlineTile, order: TileOrder): void {
  const [left, top, right, bottom] = order.window;
  const around = new Path2D();
  around.rect(-order.margin[0], -order.margin[1], order.width, order.height);
  around.rect(left - order.left, top - order.top, right - left, bottom - top);
  pen.clip(around, "evenodd"); // the part of a nucleus in the window is drawn by the overlay
  const paths = new Map<number, Path2D>();
  for (let i = 0; i < tile.ids.length; i++) {
    const [from, to] = [tile.offsets[i]!, tile.offsets[i + 1]!];
    const number = tile.classes[i]!;
    let path = paths.get(number);
    if (!path) paths.set(number, (path = new Path2D()));
    path.moveTo(tile.coords[2 * from]! / UNIT, tile.coords[2 * from + 1]! / UNIT);
    for (let k = from + 1; k < to; k++) path.lineTo(tile.coords[2 * k]! / UNIT, tile.coords[2 * k + 1]! / UNIT);
    path.closePath();
  }
  pen.lineJoin = "round";
  const cased = tile.ids.length <= CASED;
  for (const [number, path] of paths) {
    if (cased) {
      pen.lineWidth = 2.4;
      pen.strokeStyle = "rgb(0 0 0 / 0.45)";
      pen.stroke(path);
    }
    pen.lineWidth = cased ? 1.1 : 0.9;
    pen.strokeStyle = order.colors[number] ?? order.colors[0]!;
    pen.stroke(path);
  }
}
