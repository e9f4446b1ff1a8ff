// All nuclei of a slide as a layer of tiles: outlines drawn from vector tiles where they can be told apart, and the
// server's picture of their density farther out. OpenSeadragon keeps the tiles, so that panning costs their copying.
import OpenSeadragon from "openseadragon";
import { api } from "../logic/api";
import { classColor } from "../logic/colors";
import type { Box } from "../logic/geometry";
import { readOutlineTile, UNIT, type OutlineTile } from "../logic/outlineTile";
import type { ImageFacts } from "../logic/types";
import * as store from "../store";

const MARGIN = 48; // px around a tile into which its nuclei may reach

type Job = OpenSeadragon.ImageJob & {
  tile: { level: number; x: number; y: number };
  userData: { stop?: AbortController };
};

export class NucleiSource extends OpenSeadragon.TileSource {
  /** `window` is the open one, x, y, width, height in px of the image: its nuclei are drawn by the overlay. */
  constructor(
    private readonly image: ImageFacts,
    private readonly window: Box,
  ) {
    const { width, height, tile_size: tileSize, levels } = image;
    super({
      width, height, tileSize, tileOverlap: MARGIN, minLevel: 0, maxLevel: levels - 1,
    } as unknown as OpenSeadragon.TileSourceOptions);
  }

  override getTileUrl(level: number, x: number, y: number): string {
    const near = level >= this.image.outlines_from!;
    return (near ? api.outlines : api.density)(this.image.id, level, x, y);
  }

  // another window has other tiles, of the same addresses
  override getTileHashKey(level: number, x: number, y: number): string {
    return `nuclei ${this.image.id} ${this.window.join(" ")} ${level} ${x} ${y}`;
  }

  // OpenSeadragon would clear what lies beneath a tile that has: here the tissue
  override hasTransparency(): boolean {
    return false;
  }

  override downloadTileStart(job: OpenSeadragon.ImageJob): void {
    const context = job as Job;
    const stop = new AbortController();
    context.userData.stop = stop;
    void this.load(context, stop.signal).catch((error: unknown) => {
      job.fail(error instanceof Error ? error.message : String(error), null as unknown as XMLHttpRequest);
    });
  }

  override downloadTileAbort(job: OpenSeadragon.ImageJob): void {
    (job as Job).userData.stop?.abort();
  }

  private async load(context: Job, signal: AbortSignal): Promise<void> {
    const { level, x, y } = context.tile;
    const response = await fetch(context.src, { signal });
    if (!response.ok) throw new Error(`tile ${level}/${x}_${y}: ${response.status}`);
    const { tile_size: size } = this.image;
    const scale = 2 ** (level - this.image.levels + 1);
    const [wide, high] = [Math.ceil(this.image.width * scale), Math.ceil(this.image.height * scale)];
    const [left, top] = [x ? MARGIN : 0, y ? MARGIN : 0];
    const canvas = document.createElement("canvas");
    canvas.width = Math.min(size + left + MARGIN, wide - x * size + left);
    canvas.height = Math.min(size + top + MARGIN, high - y * size + top);
    const pen = canvas.getContext("2d")!;
    pen.translate(left, top);
    if (level < this.image.outlines_from!) pen.drawImage(await createImageBitmap(await response.blob()), 0, 0);
    else this.draw(pen, readOutlineTile(await response.arrayBuffer()), [x * size, y * size], scale);
    context.finish(pen as unknown as HTMLImageElement, null as unknown as XMLHttpRequest, "context2d");
  }

  private draw(pen: CanvasRenderingContext2D, tile: OutlineTile, [left, top]: [number, number], scale: number): void {
    const [wx, wy, width, height] = this.window;
    const inWindow = (x: number, y: number): boolean =>
      x >= wx * scale && y >= wy * scale && x < (wx + width) * scale && y < (wy + height) * scale;
    const paths = new Map<number, Path2D>();
    for (let i = 0; i < tile.ids.length; i++) {
      const [from, to] = [tile.offsets[i]!, tile.offsets[i + 1]!];
      let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
      for (let k = from; k < to; k++) {
        const [x, y] = [tile.coords[2 * k]! / UNIT, tile.coords[2 * k + 1]! / UNIT];
        [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
      }
      if (inWindow(left + (x0 + x1) / 2, top + (y0 + y1) / 2)) continue;
      const number = tile.classes[i]!;
      const path = paths.get(number) ?? new Path2D();
      paths.set(number, path);
      for (let k = from; k < to; k++) {
        path[k === from ? "moveTo" : "lineTo"](tile.coords[2 * k]! / UNIT, tile.coords[2 * k + 1]! / UNIT);
      }
      path.closePath();
    }
    pen.lineJoin = "round";
    for (const [number, path] of paths) {
      pen.lineWidth = 2.4;
      pen.strokeStyle = "rgb(0 0 0 / 0.45)";
      pen.stroke(path);
      pen.lineWidth = 1.1;
      pen.strokeStyle = store.project.value?.class_names.length ? classColor(number) : "#f0e442";
      pen.stroke(path);
    }
  }
}
