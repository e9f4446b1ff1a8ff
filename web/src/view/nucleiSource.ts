// All nuclei of a slide as a layer of tiles: outlines where they can be told apart, and the server's picture of their
// density farther out. OpenSeadragon keeps the tiles, so that panning costs their copying.
import OpenSeadragon from "openseadragon";
import { api } from "../logic/api";
import { classColor, STATE_COLORS } from "../logic/colors";
import type { Box } from "../logic/geometry";
import type { ImageFacts } from "../logic/types";
import * as store from "../store";
import type { TileAnswer, TileOrder } from "./tileWorker";

const MARGIN = 48; // px around a tile into which its nuclei may reach
const SOME_CLASSES = 255; // that a tile can name

type Job = OpenSeadragon.ImageJob & {
  tile: { level: number; x: number; y: number };
  userData: { order?: number };
};

const worker = new Worker(new URL("./tileWorker.ts", import.meta.url), { type: "module" });
const jobs = new Map<number, Job>();
let orders = 0;

worker.addEventListener("message", ({ data }: MessageEvent<TileAnswer>) => {
  const job = jobs.get(data.id);
  jobs.delete(data.id);
  const request = null as unknown as XMLHttpRequest;
  if ("error" in data) job?.fail(data.error, request);
  else job?.finish(data.bitmap as unknown as HTMLImageElement, request, "imageBitmap");
});

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
    const order = this.order(job as Job);
    (job as Job).userData.order = order.id;
    jobs.set(order.id, job as Job);
    worker.postMessage(order);
  }

  override downloadTileAbort(job: OpenSeadragon.ImageJob): void {
    worker.postMessage({ stop: (job as Job).userData.order });
  }

  private order({ tile: { level, x, y }, src }: Job): TileOrder {
    const { tile_size: size, levels, width, height } = this.image;
    const scale = 2 ** (level - levels + 1);
    const [margin, left, top] = [[x ? MARGIN : 0, y ? MARGIN : 0] as const, x * size, y * size];
    const [wx, wy, wide, high] = this.window;
    const classes = store.project.value?.class_names.length ?? 0;
    return {
      id: (orders += 1), url: new URL(src, location.href).href, outlines: level >= this.image.outlines_from!, left, top, margin,
      width: Math.min(size + margin[0] + MARGIN, Math.ceil(width * scale) - left + margin[0]),
      height: Math.min(size + margin[1] + MARGIN, Math.ceil(height * scale) - top + margin[1]),
      window: [wx * scale, wy * scale, (wx + wide) * scale, (wy + high) * scale],
      colors: classes
        ? Array.from({ length: SOME_CLASSES }, (_, number) => classColor(number))
        : [STATE_COLORS.proposed],
    };
  }
}
