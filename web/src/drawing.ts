// What becomes of what is drawn: a new nucleus, another outline, a cut, or a question to the model.
import { failed, send } from "./actions";
import { api } from "./logic/api";
import { asOutline, boundsOf, crossesItself, lengthInside, lengthen, meets, snap, toPoints } from "./logic/geometry";
import type { Point } from "./logic/types";
import * as store from "./store";

/** Takes what is drawn. `scale` is screen px per px of the image, for how closely a line is followed. */
export function confirm(scale: number): void {
  const draft = store.draft.value;
  const item = store.item.value;
  if (!draft || !item) return;
  const tolerance = Math.max(0.1, 0.6 / scale);
  if (draft.kind === "split") {
    cut(draft.points, scale);
    return;
  }
  if (draft.kind === "box") {
    store.draft.value = null;
    return;
  }
  const ring = draft.kind === "propose" ? draft.points : asOutline(draft.points, tolerance, item.width, item.height);
  const points = ring && snap(ring);
  if (!points || points.length < 3) {
    store.tell("Draw around the nucleus: three points or more", true);
    return;
  }
  if (crossesItself(points)) {
    store.tell("The outline crosses itself: take points back with Ctrl+Z, or draw again", true);
    return;
  }
  store.draft.value = null;
  store.notice.value = null;
  if (draft.kind === "reshape") send({ kind: "reshape", ids: [draft.id!], points });
  else send({ kind: "add", points });
}

/** Cuts the nucleus that most of a line lies in. */
function cut(line: readonly Point[], scale: number): void {
  const item = store.item.value!;
  const path = snap(line);
  const bounds = boundsOf(path);
  let [most, target] = [0, null as store.Outlined | null];
  for (const nucleus of store.nuclei.value.values()) {
    if (nucleus.state === "rejected" || !meets(nucleus.box, bounds)) continue;
    const length = lengthInside(nucleus.ring, path);
    if (length > most) [most, target] = [length, nucleus];
  }
  if (!target) {
    store.tell("Draw the line across a nucleus", true);
    store.draft.value = null;
    return;
  }
  const long = lengthen(path, 4 / scale).map(([x, y]): Point => [
    Math.max(0, Math.min(item.width, x)), Math.max(0, Math.min(item.height, y)),
  ]);
  store.draft.value = null;
  send({ kind: "split", ids: [target.id], points: snap(long) });
}

/** Asks the model for an outline at a point, and shows it. */
export async function propose(point: Point): Promise<void> {
  const item = store.item.value;
  if (!item || store.thinking.value) return;
  store.thinking.value = "The model draws an outline";
  try {
    const { points } = await api.proposal(item.id, point[0], point[1]);
    if (store.item.value?.id !== item.id || store.tool.value !== "propose") return;
    const flat = (points ?? []).flat() as number[];
    if (flat.length < 6) store.tell("The model sees no nucleus there: draw it (D)", true);
    else {
      store.draft.value = { kind: "propose", points: toPoints(flat), closed: true };
      store.speak("The model proposes an outline. Enter takes it, Escape gives it up.");
    }
  } catch (error) {
    failed(error);
  } finally {
    store.thinking.value = null;
  }
}
