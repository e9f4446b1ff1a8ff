// What mouse, pen and finger do with each tool.
import type OpenSeadragon from "openseadragon";
import * as actions from "../actions";
import * as drawing from "../drawing";
import { boundsOf, clampTo, contains, distance, meets, nearestOnRing, pullBorder, replacePiece } from "../logic/geometry";
import type { Point } from "../logic/types";
import * as store from "../store";
import type { Viewer } from "./viewer";

const NEAR = 9; // screen px: a border, or the first point of an outline, is meant
const STEP = 2; // screen px between points of a line that is drawn

interface Press {
  position: OpenSeadragon.Point;
  originalEvent: MouseEvent;
  shift?: boolean;
  quick?: boolean;
  preventDefaultAction?: boolean;
}

let held = false; // the space bar: the image is moved with any tool
export const holdToPan = (on: boolean): void => void (held = on);

/** The nucleus at a point of the item: the smallest that holds it, else one whose border is near. */
export function nucleusAt(point: Point, reach: number): store.Outlined | null {
  let [found, size] = [null as store.Outlined | null, Infinity];
  const around = [point[0] - reach, point[1] - reach, point[0] + reach, point[1] + reach] as const;
  for (const nucleus of store.nuclei.value.values()) {
    if (!meets(nucleus.box, around) || (nucleus.state === "rejected" && !store.layers.rejected.value)) continue;
    const [left, top, right, bottom] = nucleus.box;
    const inside = contains(nucleus.ring, point);
    if (!inside && nearestOnRing(nucleus.ring, point).distance > reach) continue;
    const area = (right - left) * (bottom - top) * (inside ? 1 : 1e6);
    if (area < size) [found, size] = [nucleus, area];
  }
  return found;
}

export function attachPointer(viewer: Viewer): void {
  const { seadragon } = viewer;
  const scale = (): number => viewer.transform()?.scale ?? 1;
  let start: Point | null = null; // where the pointer went down, px of the item
  let pulled: { ring: Point[]; id: number } | null = null; // the outline whose border is pulled

  const inItem = ([x, y]: Point): boolean => {
    const item = store.item.value;
    return !!item && x >= 0 && y >= 0 && x <= item.width && y <= item.height;
  };
  const within = (point: Point): Point => {
    const item = store.item.value!;
    return clampTo([point], item.width, item.height)[0]!;
  };
  const draws = (event: Press): boolean =>
    !held && event.originalEvent.button !== 1 && !!store.item.value &&
    (store.tool.value === "draw" || store.tool.value === "split" || store.tool.value === "reshape" ||
      (store.tool.value === "select" && event.originalEvent.shiftKey));

  seadragon.addHandler("canvas-press", (raw) => {
    const event = raw as unknown as Press;
    start = viewer.toItem(event.position);
    pulled = null;
    if (!draws(event) || store.tool.value !== "reshape") return;
    const nucleus = reshaped(start);
    if (nucleus && nearestOnRing(nucleus.ring, start).distance * scale() <= NEAR) {
      pulled = { ring: nucleus.ring, id: nucleus.id };
    }
  });

  /** The nucleus that is reshaped: the chosen one, else the one at the point. */
  function reshaped(point: Point): store.Outlined | null {
    const [id] = store.chosen.value;
    const chosen = store.chosen.value.size === 1 ? store.nuclei.value.get(id!) : undefined;
    return chosen ?? nucleusAt(point, NEAR / scale());
  }

  seadragon.addHandler("canvas-drag", (raw) => {
    const event = raw as unknown as Press;
    const draft = store.draft.value;
    if (!start || !(draws(event) || draft?.kind === "box")) return;
    event.preventDefaultAction = true;
    const point = within(viewer.toItem(event.position));
    if (pulled) {
      const radius = Math.max(28 / scale(), distance(start, point) * 1.5);
      store.draft.value = { kind: "reshape", closed: true, id: pulled.id, points: pullBorder(pulled.ring, start, point, radius) };
      return;
    }
    if (store.tool.value === "select") {
      const [a, b] = [within(start), point];
      store.draft.value = { kind: "box", closed: true, points: [a, [b[0], a[1]], b, [a[0], b[1]]] };
      return;
    }
    const kind = store.tool.value as "draw" | "split" | "reshape";
    const continued = draft?.kind === kind && !draft.closed ? draft.points : [within(start)];
    if (distance(continued.at(-1)!, point) * scale() < STEP) return;
    store.draft.value = { kind, closed: false, points: [...continued, point] };
  });

  seadragon.addHandler("canvas-drag-end", (raw) => {
    const event = raw as unknown as Press;
    const draft = store.draft.value;
    if (!draft || !start || draft.kind === "propose") return;
    event.preventDefaultAction = true;
    finish(draft);
  });

  function finish(draft: store.Draft): void {
    if (draft.kind === "box") {
      const [left, top, right, bottom] = boundsOf(draft.points);
      store.draft.value = null;
      const ids = [...store.nuclei.value.values()]
        .filter(({ box, state }) => (box[0] + box[2]) / 2 >= left && (box[0] + box[2]) / 2 <= right &&
          (box[1] + box[3]) / 2 >= top && (box[1] + box[3]) / 2 <= bottom &&
          (state !== "rejected" || store.layers.rejected.value))
        .map(({ id }) => id);
      actions.choose([...new Set([...store.chosen.value, ...ids])]);
      return;
    }
    if (draft.kind === "reshape" && !draft.closed) {
      const nucleus = reshaped(draft.points[0]!);
      const points = nucleus && replacePiece(nucleus.ring, draft.points, NEAR / scale());
      if (!nucleus || !points) {
        store.draft.value = null;
        store.tell(nucleus ? "Begin and end the line on the border, or across it" : "Choose the nucleus to reshape: click it", true);
        return;
      }
      store.draft.value = { kind: "reshape", closed: true, id: nucleus.id, points };
    }
    drawing.confirm(scale());
  }

  seadragon.addHandler("canvas-click", (raw) => {
    const event = raw as unknown as Press;
    if (!event.quick || !store.item.value || event.originalEvent.button === 1) return;
    event.preventDefaultAction = true;
    seadragon.canvas.focus({ preventScroll: true });
    const point = viewer.toItem(event.position);
    if (!inItem(point)) {
      openThere(point);
      return;
    }
    const draft = store.draft.value;
    switch (store.tool.value) {
      case "draw":
      case "split": {
        const kind = store.tool.value;
        const points = draft?.kind === kind ? draft.points : [];
        const closes = kind === "draw" && points.length > 2 && distance(points[0]!, point) * scale() < NEAR;
        if (closes) drawing.confirm(scale());
        else store.draft.value = { kind, closed: false, points: [...points, point] };
        if (kind === "split" && points.length === 1) drawing.confirm(scale());
        return;
      }
      case "propose":
        if (draft?.kind === "propose" && contains(draft.points, point)) drawing.confirm(scale());
        else void drawing.propose(point);
        return;
      default:
        pick(point, event.originalEvent.shiftKey);
    }
  });

  function pick(point: Point, more: boolean): void {
    const nucleus = nucleusAt(point, NEAR / scale() / 2);
    const before = store.chosen.value;
    if (!more) actions.choose(nucleus ? [nucleus.id] : []);
    else if (nucleus) {
      actions.choose(before.has(nucleus.id) ? [...before].filter((id) => id !== nucleus.id) : [...before, nucleus.id]);
    }
  }

  function openThere([x, y]: Point): void {
    const [image, window] = [store.image.value, store.windowOf.value];
    if (!image || !window || store.draft.value) return;
    const at: Point = [x + window[0], y + window[1]];
    if (at[0] < 0 || at[1] < 0 || at[0] >= image.width || at[1] >= image.height) return;
    void actions.openAt(image.id, at);
  }

  seadragon.addHandler("canvas-double-click", (raw) => {
    (raw as unknown as Press).preventDefaultAction = true;
    if (store.draft.value?.kind === "draw") drawing.confirm(scale());
  });

  // two fingers zoom: what one of them began to draw was not meant
  seadragon.addHandler("canvas-pinch", () => {
    if (store.draft.value && !store.draft.value.closed) store.draft.value = null;
    start = null;
  });

  seadragon.canvas.addEventListener("pointermove", ({ clientX, clientY }) => {
    const { left, top } = seadragon.canvas.getBoundingClientRect();
    const point = viewer.toItem({ x: clientX - left, y: clientY - top });
    store.hovered.value = inItem(point) ? (nucleusAt(point, 2 / scale())?.id ?? null) : null;
  });
  seadragon.canvas.addEventListener("pointerleave", () => (store.hovered.value = null));
}
