// Geometry of outlines: pure functions of rings [[x, y], ...] (open: the last point is not the first again), px.
import type { Point } from "./types";

export type Box = readonly [number, number, number, number]; // left, top, right, bottom

export const distance = (a: Point, b: Point): number => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** A flat list x0, y0, x1, y1, ... as points. */
export function toPoints(flat: readonly number[]): Point[] {
  const points: Point[] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) points.push([flat[i]!, flat[i + 1]!]);
  return points;
}

export function boundsOf(points: readonly Point[]): Box {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    left = Math.min(left, x);
    top = Math.min(top, y);
    right = Math.max(right, x);
    bottom = Math.max(bottom, y);
  }
  return [left, top, right, bottom];
}

export const meets = (a: Box, b: Box): boolean => a[0] <= b[2] && a[2] >= b[0] && a[1] <= b[3] && a[3] >= b[1];

export const centerOf = (box: Box): Point => [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];

/** Area, positive where the ring runs clockwise on the screen (y down). */
export function signedArea(ring: readonly Point[]): number {
  let sum = 0;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    sum += ring[j]![0] * ring[i]![1] - ring[i]![0] * ring[j]![1];
  }
  return sum / 2;
}

/** Whether a point lies in a ring (even-odd). */
export function contains(ring: readonly Point[], [x, y]: Point): boolean {
  let inside = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [xi, yi] = ring[i]!;
    const [xj, yj] = ring[j]!;
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/** Distance of a point to the segment a-b, and the nearest point on it. */
export function toSegment(point: Point, a: Point, b: Point): { distance: number; point: Point } {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const length = dx * dx + dy * dy;
  const t = length ? Math.max(0, Math.min(1, ((point[0] - a[0]) * dx + (point[1] - a[1]) * dy) / length)) : 0;
  const nearest: Point = [a[0] + t * dx, a[1] + t * dy];
  return { distance: distance(point, nearest), point: nearest };
}

/** The place on a ring that is nearest to a point: after which vertex, where, and how far. */
export function nearestOnRing(ring: readonly Point[], point: Point): { after: number; point: Point; distance: number } {
  let best = { after: 0, point: ring[0]!, distance: Infinity };
  for (let i = 0; i < ring.length; i++) {
    const found = toSegment(point, ring[i]!, ring[(i + 1) % ring.length]!);
    if (found.distance < best.distance) best = { after: i, ...found };
  }
  return best;
}

/** Where segments a-b and c-d cross, or null. */
export function crossing(a: Point, b: Point, c: Point, d: Point): Point | null {
  const [rx, ry, sx, sy] = [b[0] - a[0], b[1] - a[1], d[0] - c[0], d[1] - c[1]];
  const across = rx * sy - ry * sx;
  if (across === 0) return null;
  const t = ((c[0] - a[0]) * sy - (c[1] - a[1]) * sx) / across;
  const u = ((c[0] - a[0]) * ry - (c[1] - a[1]) * rx) / across;
  return t >= 0 && t <= 1 && u >= 0 && u <= 1 ? [a[0] + t * rx, a[1] + t * ry] : null;
}

/** Whether two edges of a ring cross that are not neighbors. */
export function crossesItself(ring: readonly Point[]): boolean {
  const count = ring.length;
  for (let i = 0; i < count; i++) {
    for (let j = i + 2; j < count; j++) {
      if (i === 0 && j === count - 1) continue;
      if (crossing(ring[i]!, ring[i + 1]!, ring[j]!, ring[(j + 1) % count]!)) return true;
    }
  }
  return false;
}

/** Fewer points of a line, none farther off than `tolerance` (Douglas and Peucker, 1973). */
export function simplify(line: readonly Point[], tolerance: number): Point[] {
  if (line.length < 3) return [...line];
  const kept = new Uint8Array(line.length);
  kept[0] = kept[line.length - 1] = 1;
  const parts: [number, number][] = [[0, line.length - 1]];
  for (let part = parts.pop(); part; part = parts.pop()) {
    const [first, last] = part;
    let [far, most] = [0, tolerance];
    for (let i = first + 1; i < last; i++) {
      const off = toSegment(line[i]!, line[first]!, line[last]!).distance;
      if (off > most) [far, most] = [i, off];
    }
    if (far) {
      kept[far] = 1;
      parts.push([first, far], [far, last]);
    }
  }
  return line.filter((_, i) => kept[i]);
}

/** Points moved into the image of this size. */
export const clampTo = (points: readonly Point[], width: number, height: number): Point[] =>
  points.map(([x, y]) => [Math.max(0, Math.min(width, x)), Math.max(0, Math.min(height, y))]);

/** Points rounded to 1/64 px, the grid of the journal, without repeats. */
export function snap(points: readonly Point[]): Point[] {
  const rounded = points.map(([x, y]): Point => [Math.round(x * 64) / 64, Math.round(y * 64) / 64]);
  return rounded.filter((point, i) => i === 0 || distance(point, rounded[i - 1]!) > 0);
}

/** A drawn line as an outline: in the image, simplified, open. Null where it encloses nothing. */
export function asOutline(line: readonly Point[], tolerance: number, width: number, height: number): Point[] | null {
  const ring = snap(simplify(clampTo(line, width, height), tolerance));
  if (ring.length > 1 && distance(ring[0]!, ring.at(-1)!) === 0) ring.pop();
  return ring.length >= 3 && Math.abs(signedArea(ring)) > 0 ? ring : null;
}

/** The part of a ring from one place on its border to another, running forward. */
function along(ring: readonly Point[], from: { after: number; point: Point }, to: { after: number; point: Point }): Point[] {
  const points: Point[] = [from.point];
  const count = ring.length;
  const ahead = from.after === to.after && distance(ring[from.after]!, from.point) <= distance(ring[to.after]!, to.point);
  if (!ahead) {
    for (let i = (from.after + 1) % count; ; i = (i + 1) % count) {
      points.push(ring[i]!);
      if (i === to.after) break;
    }
  }
  points.push(to.point);
  return points;
}

/**
 * A ring with a new piece of border, drawn as a line across it: what the line adds outside of the ring is added, what
 * it cuts off inside of it is cut off. Where both ends of the line lie near the border, or beyond it, the larger of
 * the two rings that are possible is meant. Null where the line does not meet the border twice, `reach` px allowed.
 */
export function replacePiece(ring: readonly Point[], line: readonly Point[], reach: number): Point[] | null {
  if (ring.length < 3 || line.length < 2) return null;
  const meetings: { at: number; point: Point; after: number }[] = [];
  for (let k = 0; k + 1 < line.length; k++) {
    const here: { at: number; point: Point; after: number; along: number }[] = [];
    for (let i = 0; i < ring.length; i++) {
      const point = crossing(line[k]!, line[k + 1]!, ring[i]!, ring[(i + 1) % ring.length]!);
      if (point) here.push({ at: k, point, after: i, along: distance(line[k]!, point) });
    }
    meetings.push(...here.sort((a, b) => a.along - b.along));
  }
  const startOn = nearestOnRing(ring, line[0]!);
  const endOn = nearestOnRing(ring, line.at(-1)!);
  let first = meetings[0];
  let last = meetings.at(-1);
  if (!first || startOn.distance <= reach) first = startOn.distance <= reach ? { at: -1, ...startOn } : first;
  if (!last || endOn.distance <= reach) last = endOn.distance <= reach ? { at: line.length - 1, ...endOn } : last;
  if (!first || !last || first === last || distance(first.point, last.point) === 0) return null;
  const middle = line.slice(first.at + 1, last.at + 1);
  const ways = [
    [...along(ring, last, first), ...middle],
    [...along(ring, first, last), ...[...middle].reverse()],
  ].map((way) => snap(way));
  const [a, b] = ways.map((way) => (crossesItself(way) ? -1 : Math.abs(signedArea(way))));
  const best = a! >= b! ? ways[0]! : ways[1]!;
  if (Math.max(a!, b!) <= 0) return null;
  if (distance(best[0]!, best.at(-1)!) === 0) best.pop();
  return best.length >= 3 ? best : null;
}

/** A ring of which the border near `from` is pulled to `to`; `radius` px on either side follow, less with distance. */
export function pullBorder(ring: readonly Point[], from: Point, to: Point, radius: number): Point[] {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const near = nearestOnRing(ring, from);
  const dense = [...ring.slice(0, near.after + 1), near.point, ...ring.slice(near.after + 1)];
  return snap(
    dense.map((point): Point => {
      const share = Math.max(0, 1 - (distance(point, near.point) / radius) ** 2) ** 2;
      return [point[0] + dx * share, point[1] + dy * share];
    }),
  );
}

/** A line made longer at both ends by `reach` px, so that a cut that ends on the border goes through it. */
export function lengthen(line: readonly Point[], reach: number): Point[] {
  if (line.length < 2) return [...line];
  const out = (end: Point, inner: Point): Point => {
    const length = distance(end, inner) || 1;
    return [end[0] + ((end[0] - inner[0]) / length) * reach, end[1] + ((end[1] - inner[1]) / length) * reach];
  };
  return [out(line[0]!, line[1]!), ...line, out(line.at(-1)!, line.at(-2)!)];
}

/** How much of a line lies in a ring, px, by samples each px. */
export function lengthInside(ring: readonly Point[], line: readonly Point[]): number {
  let inside = 0;
  for (let k = 0; k + 1 < line.length; k++) {
    const [a, b] = [line[k]!, line[k + 1]!];
    const steps = Math.max(1, Math.ceil(distance(a, b)));
    for (let step = 0; step < steps; step++) {
      const t = (step + 0.5) / steps;
      if (contains(ring, [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t])) inside += distance(a, b) / steps;
    }
  }
  return inside;
}
