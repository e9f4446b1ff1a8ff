// What is drawn over the image: the nuclei of the item, what is chosen, and what is being drawn.
import { effect } from "@preact/signals";
import { api } from "../logic/api";
import { classColor, entropyColor, NO_CLASS, rampColor, STATE_COLORS } from "../logic/colors";
import { centerOf } from "../logic/geometry";
import type { EditRequest, Point } from "../logic/types";
import * as store from "../store";
import { drawn, type Transform, type Viewer } from "./viewer";

const CASING = "rgb(10 12 16 / 0.65)";
const CHOSEN = "#ffffff";
const DRAFT = "#7cc4ff";
const UNSAVED = "#ffb000";
const NUMBERS_FROM = 1.5; // screen px per px: classes are written beside nuclei
const MOST_NUMBERS = 600;
const MANY = 300; // nuclei, from which on they are drawn once and copied while the image moves
const AROUND = 0.4; // of the view, by which that copy reaches beyond it
const STALE_MS = 120; // for which a copy of another scale is shown while one zooms

interface Group {
  color: string;
  state: store.Outlined["state"];
  path: Path2D;
  marks: Point[]; // centers, of those that are decided on
}

const trace = (path: Path2D, ring: readonly Point[], close = true): void => {
  ring.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
  if (close) path.closePath();
};

/** Nuclei that look the same, as one path each. */
function group(nuclei: Iterable<store.Outlined>, by: store.ColorBy, classNames: readonly string[]): Group[] {
  const groups = new Map<string, Group>();
  for (const nucleus of nuclei) {
    const { state, class_name, entropy, ring, box } = nucleus;
    const color =
      state === "rejected" ? STATE_COLORS.rejected
      : by === "uncertainty" ? entropyColor(entropy)
      : by === "class" ? (class_name === null ? NO_CLASS : classColor(classNames.indexOf(class_name) + 1))
      : STATE_COLORS[state];
    const key = `${state} ${color}`;
    let same = groups.get(key);
    if (!same) groups.set(key, (same = { color, state, path: new Path2D(), marks: [] }));
    trace(same.path, ring);
    if (state !== "proposed") same.marks.push(centerOf(box));
  }
  return [...groups.values()];
}

/** The map of the item in colors, on a canvas of its size. */
async function loadMap(item: string, kind: "probability" | "entropy"): Promise<HTMLCanvasElement | null> {
  const response = await fetch(api.map(item, kind)).catch(() => null);
  if (!response?.ok) {
    const { detail } = (await response?.json().catch(() => ({})) ?? {}) as { detail?: string };
    store.tell(`The map cannot be shown: ${detail ?? "the program does not answer"}`, true);
    return null;
  }
  const bitmap = await createImageBitmap(await response.blob());
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const pen = canvas.getContext("2d")!;
  pen.drawImage(bitmap, 0, 0);
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  const table = Array.from({ length: 256 }, (_, value) => rampColor(value / 255));
  for (let i = 0; i < pixels.data.length; i += 4) {
    const value = pixels.data[i]!;
    pixels.data.set(table[value]!, i);
    pixels.data[i + 3] = kind === "entropy" ? Math.min(255, value * 2) : value; // what is sure shows the tissue
  }
  pen.putImageData(pixels, 0, 0);
  return canvas;
}

/** The nuclei as drawn before: which part of the item (px) at which scale. */
interface Picture {
  canvas: HTMLCanvasElement;
  style: number;
  scale: number;
  left: number;
  top: number;
  right: number;
  bottom: number;
  time: number;
}

export class Overlay {
  private pen: CanvasRenderingContext2D;
  private groups: Group[] = [];
  private style = 0; // another one wherever nuclei look different
  private picture: Picture | null = null;
  private map: { key: string; canvas: HTMLCanvasElement | null } = { key: "", canvas: null };
  private due = 0;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly viewer: Viewer,
  ) {
    this.pen = canvas.getContext("2d")!;
    effect(() => {
      const names = store.item.value?.class_names ?? [];
      this.groups = group(store.nuclei.value.values(), store.colorBy.value, names);
      this.style += 1;
      this.redraw();
    });
    effect(() => {
      const [item, kind] = [store.item.value?.id, store.map.value];
      const key = item && kind !== "none" ? `${item} ${kind}` : "";
      if (key === this.map.key) return;
      this.map = { key, canvas: null };
      if (!item || kind === "none") return;
      const says = "The model computes the map";
      store.thinking.value = says;
      void loadMap(item, kind).then((canvas) => {
        if (store.thinking.value === says) store.thinking.value = null;
        if (this.map.key === key) this.map.canvas = canvas;
        this.redraw();
      });
    });
    effect(() => {
      const { outlines, fill, rejected } = store.layers;
      void [outlines, fill, rejected, store.opacity.outlines, store.opacity.fill].map((one) => one.value);
      this.style += 1;
      this.redraw();
    });
    effect(() => {
      void [store.opacity.map, store.hidden, store.chosen, store.hovered, store.draft, store.tool, store.report, store.map].map((one) => one.value);
      void [drawn.value, store.windowOf.value, store.image.value];
      this.redraw();
    });
  }

  private redraw(): void {
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      this.draw();
    });
  }

  private draw(): void {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const pen = this.pen;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const view = this.viewer.transform();
    const box = store.windowOf.value;
    if (!view || !box) return;
    this.dim(view, box, width, height);
    const { scale } = view;
    pen.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * (view.left + box[0] * scale), ratio * (view.top + box[1] * scale));
    pen.lineJoin = "round";
    if (!store.hidden.value) {
      this.drawMap(box);
      if (store.nuclei.value.size < MANY) this.drawNuclei(scale);
      else this.copyNuclei(view, box, ratio, width, height);
      this.drawNumbers(view, box, ratio, width, height);
      this.drawChosen(scale);
    }
    this.drawUnsaved(scale);
    this.drawDraft(scale);
  }

  private dim({ scale, left, top }: Transform, [x, y, w, h]: readonly [number, number, number, number], width: number, height: number): void {
    const image = store.image.value;
    if (!image) return;
    const pen = this.pen;
    const frame = [left + x * scale, top + y * scale, w * scale, h * scale] as const;
    if (w < image.width || h < image.height) {
      pen.fillStyle = "rgb(8 10 14 / 0.5)";
      pen.beginPath();
      pen.rect(0, 0, width, height);
      pen.rect(...frame);
      pen.fill("evenodd");
      for (const one of image.items) {
        if (!one.window || !one.status || one.status === "open") continue;
        const [ox, oy, ow, oh] = one.window;
        pen.setLineDash(one.status === "skipped" ? [4, 4] : []);
        pen.strokeStyle = one.status === "skipped" ? STATE_COLORS.rejected : STATE_COLORS.accepted;
        pen.lineWidth = 1;
        pen.strokeRect(left + ox * scale + 1, top + oy * scale + 1, ow * scale - 2, oh * scale - 2);
      }
      pen.setLineDash([]);
    }
    pen.strokeStyle = "rgb(255 255 255 / 0.85)";
    pen.lineWidth = 1.5;
    pen.strokeRect(...frame);
  }

  private drawMap([, , width, height]: readonly [number, number, number, number]): void {
    if (!this.map.canvas || store.map.value === "none") return;
    this.pen.globalAlpha = store.opacity.map.value;
    this.pen.drawImage(this.map.canvas, 0, 0, width, height);
    this.pen.globalAlpha = 1;
  }

  /** Draws the nuclei from a picture of them, which is made anew where it does not hold what is in view. */
  private copyNuclei({ scale, left, top }: Transform, box: readonly number[], ratio: number, width: number, height: number): void {
    const seen = { left: -left / scale - box[0]!, top: -top / scale - box[1]! };
    const [wide, high] = [width / scale, height / scale];
    const view = {
      left: Math.max(-8, seen.left), top: Math.max(-8, seen.top),
      right: Math.min(box[2]! + 8, seen.left + wide), bottom: Math.min(box[3]! + 8, seen.top + high),
    };
    if (view.right <= view.left || view.bottom <= view.top) return;
    const old = this.picture?.style === this.style ? this.picture : null;
    const holds = old && old.left <= view.left && old.top <= view.top && old.right >= view.right && old.bottom >= view.bottom;
    if (!(old && holds && old.scale === scale)) {
      if (old && old.scale !== scale && performance.now() - old.time < STALE_MS) setTimeout(() => this.redraw(), STALE_MS);
      else {
        this.picture = this.paint({
          left: Math.max(-8, view.left - wide * AROUND), top: Math.max(-8, view.top - high * AROUND),
          right: Math.min(box[2]! + 8, view.right + wide * AROUND), bottom: Math.min(box[3]! + 8, view.bottom + high * AROUND),
        }, scale, ratio);
      }
    }
    const picture = this.picture!;
    picture.time = picture.scale === scale ? performance.now() : picture.time;
    this.pen.drawImage(
      picture.canvas, picture.left, picture.top,
      picture.canvas.width / (picture.scale * ratio), picture.canvas.height / (picture.scale * ratio),
    );
  }

  private paint(part: { left: number; top: number; right: number; bottom: number }, scale: number, ratio: number): Picture {
    const canvas = document.createElement("canvas");
    const by = scale * ratio;
    canvas.width = Math.max(1, Math.ceil((part.right - part.left) * by));
    canvas.height = Math.max(1, Math.ceil((part.bottom - part.top) * by));
    const shown = this.pen;
    this.pen = canvas.getContext("2d")!;
    this.pen.lineJoin = "round";
    this.pen.setTransform(by, 0, 0, by, -part.left * by, -part.top * by);
    this.drawNuclei(scale);
    this.pen = shown;
    return { canvas, style: this.style, scale, ...part, time: performance.now() };
  }

  private drawNuclei(scale: number): void {
    const pen = this.pen;
    const thin = Math.max(0.4, Math.min(1, scale * 1.6)); // far out, outlines would be all that is seen
    for (const { color, state, path, marks } of this.groups) {
      if (state === "rejected" && !store.layers.rejected.value) continue;
      if (store.layers.fill.value && state !== "rejected") {
        pen.globalAlpha = store.opacity.fill.value;
        pen.fillStyle = color;
        pen.fill(path);
      }
      if (!store.layers.outlines.value) continue;
      pen.globalAlpha = store.opacity.outlines.value;
      const width = (thin * (state === "accepted" ? 2.4 : 1.4)) / scale;
      pen.setLineDash(state === "rejected" ? [5 / scale, 4 / scale] : []);
      pen.lineWidth = width + (1.6 * thin) / scale;
      pen.strokeStyle = CASING;
      pen.stroke(path);
      pen.lineWidth = width;
      pen.strokeStyle = color;
      pen.stroke(path);
      pen.setLineDash([]);
      if (scale > 0.5) this.drawMarks(marks, state, color, scale);
    }
    pen.globalAlpha = 1;
  }

  /** A dot in what is accepted, a cross in what is rejected: nobody has to tell colors apart. */
  private drawMarks(marks: readonly Point[], state: store.Outlined["state"], color: string, scale: number): void {
    const path = new Path2D();
    const reach = 3 / scale;
    for (const [x, y] of marks) {
      if (state === "accepted") {
        path.moveTo(x + reach * 0.6, y);
        path.arc(x, y, reach * 0.6, 0, 7);
      } else {
        path.moveTo(x - reach, y - reach);
        path.lineTo(x + reach, y + reach);
        path.moveTo(x + reach, y - reach);
        path.lineTo(x - reach, y + reach);
      }
    }
    for (const [style, width] of [[CASING, 3.4], [color, 1.6]] as const) {
      this.pen.strokeStyle = style;
      this.pen.lineWidth = width / scale;
      this.pen.stroke(path);
    }
    if (state === "accepted") {
      this.pen.fillStyle = color;
      this.pen.fill(path);
    }
  }

  private drawNumbers({ scale, left, top }: Transform, box: readonly number[], ratio: number, width: number, height: number): void {
    const names = store.item.value?.class_names ?? [];
    if (store.colorBy.value !== "class" || scale < NUMBERS_FROM || !names.length || !store.layers.outlines.value) return;
    const pen = this.pen;
    pen.save();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    let left_ = MOST_NUMBERS;
    for (const { box: bounds, class_name, state } of store.nuclei.value.values()) {
      if (class_name === null || state === "rejected") continue;
      const [cx, cy] = centerOf(bounds);
      const [x, y] = [left + (cx + box[0]!) * scale, top + (cy + box[1]!) * scale - (state === "accepted" ? 10 : 0)];
      if (x < 0 || y < 0 || x > width || y > height) continue;
      if ((left_ -= 1) < 0) break;
      const number = names.indexOf(class_name) + 1;
      pen.lineWidth = 3;
      pen.strokeStyle = CASING;
      pen.strokeText(String(number), x, y);
      pen.fillStyle = classColor(number);
      pen.fillText(String(number), x, y);
    }
    pen.restore();
  }

  private stroke(path: Path2D, color: string, width: number, scale: number, dash: number[] = []): void {
    const pen = this.pen;
    pen.setLineDash([]);
    pen.lineWidth = (width + 2) / scale;
    pen.strokeStyle = CASING;
    pen.stroke(path);
    pen.setLineDash(dash.map((one) => one / scale));
    pen.lineWidth = width / scale;
    pen.strokeStyle = color;
    pen.stroke(path);
    pen.setLineDash([]);
  }

  private drawChosen(scale: number): void {
    const known = store.nuclei.value;
    const hovered = store.hovered.value === null ? undefined : known.get(store.hovered.value);
    if (hovered && !store.chosen.value.has(hovered.id)) {
      const path = new Path2D();
      trace(path, hovered.ring);
      this.stroke(path, "rgb(255 255 255 / 0.75)", 1.5, scale);
    }
    const path = new Path2D();
    for (const id of store.chosen.value) {
      const nucleus = known.get(id);
      if (nucleus && store.draft.value?.id !== id) trace(path, nucleus.ring);
    }
    if (store.chosen.value.size) this.stroke(path, CHOSEN, 2.6, scale);
  }

  /** What was drawn and is not saved yet, or was refused. */
  private drawUnsaved(scale: number): void {
    const { pending, failed } = store.report.value;
    const path = new Path2D();
    for (const { item, what } of [...pending, ...failed]) {
      const points = (what as EditRequest).points;
      if (item === store.item.value?.id && points) trace(path, points, what.kind !== "split");
    }
    this.stroke(path, UNSAVED, 2, scale, [7, 4]);
  }

  private drawDraft(scale: number): void {
    const draft = store.draft.value;
    if (!draft?.points.length) return;
    const pen = this.pen;
    const path = new Path2D();
    trace(path, draft.points, draft.closed || draft.kind === "box");
    if (draft.closed || draft.kind === "box") {
      pen.fillStyle = "rgb(124 196 255 / 0.2)";
      pen.fill(path);
    }
    this.stroke(path, DRAFT, 2, scale, draft.kind === "propose" || draft.kind === "box" ? [6, 4] : []);
    if (draft.kind === "draw" && !draft.closed && draft.points.length < 40) {
      pen.fillStyle = DRAFT;
      for (const [x, y] of draft.points) pen.fillRect(x - 2.5 / scale, y - 2.5 / scale, 5 / scale, 5 / scale);
    }
  }
}
