// The image: OpenSeadragon with the tiles of the server, and for slides a layer of all nuclei that it was found to
// hold (outlines near, their density far out).
import { effect, signal } from "@preact/signals";
import OpenSeadragon from "openseadragon";
import { api } from "../logic/api";
import type { Box } from "../logic/geometry";
import type { ImageFacts, Point } from "../logic/types";
import * as store from "../store";
import { NucleiSource } from "./nucleiSource";

const AROUND_UM = 120; // of tissue around a nucleus that is brought into view
const AROUND_PX = 320; // the same where there is no scale

/** Screen px of the viewer = scale * px of the image + offset. */
export interface Transform {
  scale: number;
  left: number;
  top: number;
}

/** Raised by one whenever what is drawn over the image has to be drawn again. */
export const drawn = signal(0);
export const zoomed = signal(1); // screen px per px of the image

export class Viewer {
  readonly seadragon: OpenSeadragon.Viewer;
  private shown: string | null = null;
  private nucleiLayer: OpenSeadragon.TiledImage | null = null;
  private layerKey = "";

  constructor(host: HTMLElement) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.seadragon = OpenSeadragon({
      element: host,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: false,
      animationTime: still ? 0 : 0.35,
      springStiffness: 8,
      blendTime: 0,
      maxZoomPixelRatio: 12,
      minZoomImageRatio: 0.8,
      visibilityRatio: 0.5,
      constrainDuringPan: false,
      imageSmoothingEnabled: true,
      preserveImageSizeOnResize: true,
      maxImageCacheCount: 400,
      imageLoaderLimit: 6,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false, flickEnabled: !still },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false, flickEnabled: !still },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
      keyboardNavEnabled: false,
    } as OpenSeadragon.Options);
    const again = (): void => void (drawn.value += 1);
    for (const name of ["update-viewport", "resize", "open"] as const) this.seadragon.addHandler(name, again);
    this.seadragon.addHandler("update-viewport", () => (zoomed.value = this.transform()?.scale ?? 1));
    effect(() => {
      const image = store.image.value;
      const window = store.windowOf.value;
      if (image && window) this.show(image, window);
    });
    effect(() => {
      const opacity = store.layers.context.value && !store.hidden.value ? 1 : 0;
      this.nucleiLayer?.setOpacity(opacity);
    });
  }

  private show(image: ImageFacts, window: [number, number, number, number]): void {
    const key = `${image.id} ${window.join(" ")}`;
    if (key === this.layerKey) return;
    const first = this.shown !== image.id;
    this.layerKey = key;
    if (!first) {
      this.fit();
      this.layNuclei(image, window);
      return;
    }
    this.shown = image.id;
    this.nucleiLayer = null;
    this.seadragon.addOnceHandler("open", () => {
      this.fit(true);
      this.layNuclei(image, window);
    });
    const { width, height, tile_size: tileSize, levels } = image;
    const tileSource = {
      width, height, tileSize, tileOverlap: 0, minLevel: 0, maxLevel: levels - 1,
      getTileUrl: (level: number, x: number, y: number) => api.tile(image.id, level, x, y),
    };
    this.seadragon.open({ tileSource } as unknown as OpenSeadragon.TileSourceSpecifier);
  }

  /** Puts the layer of a slide's nuclei over it, without those of the window that is open. */
  private layNuclei(image: ImageFacts, window: Box): void {
    if (this.nucleiLayer) this.seadragon.world.removeItem(this.nucleiLayer);
    this.nucleiLayer = null;
    if (!image.is_slide || !image.nuclei || image.outlines_from == null) return;
    const key = this.layerKey;
    this.seadragon.addTiledImage({
      tileSource: new NucleiSource(image, window),
      opacity: store.layers.context.value ? 1 : 0,
      success: (event) => {
        const layer = (event as unknown as { item: OpenSeadragon.TiledImage }).item;
        if (key === this.layerKey) this.nucleiLayer = layer;
        else this.seadragon.world.removeItem(layer);
      },
    });
  }

  transform(): Transform | null {
    const image = this.seadragon.world.getItemAt(0);
    if (!image) return null;
    const [a, b] = [new OpenSeadragon.Point(0, 0), new OpenSeadragon.Point(1, 0)].map((corner) =>
      this.seadragon.viewport.pixelFromPoint(corner, true),
    ) as [OpenSeadragon.Point, OpenSeadragon.Point];
    return { scale: (b.x - a.x) / image.source.dimensions.x, left: a.x, top: a.y };
  }

  /** A point of the viewer in px of the item. */
  toItem({ x, y }: { x: number; y: number }): Point {
    const { scale, left, top } = this.transform() ?? { scale: 1, left: 0, top: 0 };
    const [left0, top0] = store.windowOf.value ?? [0, 0];
    return [(x - left) / scale - left0!, (y - top) / scale - top0!];
  }

  /** Shows all of the item. */
  fit(atOnce = false): void {
    const window = store.windowOf.value;
    if (window) this.fitBox([window[0], window[1], window[0] + window[2], window[1] + window[3]], 0.02, atOnce);
  }

  private fitBox([left, top, right, bottom]: Box, margin: number, atOnce = false): void {
    const image = store.image.value;
    if (!image || !this.seadragon.world.getItemAt(0)) return;
    const [dx, dy] = [(right - left) * margin, (bottom - top) * margin];
    this.seadragon.viewport.fitBounds(
      new OpenSeadragon.Rect(
        (left - dx) / image.width, (top - dy) / image.width,
        (right - left + 2 * dx) / image.width, (bottom - top + 2 * dy) / image.width,
      ),
      atOnce,
    );
  }

  /** Brings a box of the item (px) into view: as near as its surroundings need, no nearer than the view is. */
  showBox(box: Box): void {
    const image = store.image.value;
    const window = store.windowOf.value;
    const now = this.transform();
    if (!image || !window || !now) return;
    const size = this.seadragon.viewport.getContainerSize();
    const [x, y] = [(box[0] + box[2]) / 2 + window[0], (box[1] + box[3]) / 2 + window[1]];
    const least = image.mpp ? AROUND_UM / image.mpp : AROUND_PX;
    const around = Math.max((box[2] - box[0]) * 8, (box[3] - box[1]) * 8, least);
    const wanted = Math.min(size.x, size.y) / around;
    const center = new OpenSeadragon.Point(x / image.width, y / image.width);
    const screen = [x * now.scale + now.left, y * now.scale + now.top];
    const away = screen[0]! < 60 || screen[1]! < 60 || screen[0]! > size.x - 60 || screen[1]! > size.y - 60;
    if (now.scale < wanted * 0.5) {
      this.seadragon.viewport.zoomTo((wanted * image.width) / size.x);
      this.seadragon.viewport.panTo(center);
    } else if (away) this.seadragon.viewport.panTo(center);
  }

  zoom(by: number): void {
    this.seadragon.viewport.zoomBy(by);
    this.seadragon.viewport.applyConstraints();
  }

  move(x: number, y: number): void {
    const size = this.seadragon.viewport.getContainerSize();
    this.seadragon.viewport.panBy(
      this.seadragon.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x * size.x, y * size.y)),
    );
    this.seadragon.viewport.applyConstraints();
  }
}

