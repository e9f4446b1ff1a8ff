// In what order nuclei and items are looked at.
import type { Nucleus, QueueEntry } from "./types";

/** How unsure the model is of a nucleus, for comparison; what nobody knows comes last. */
function unsureness({ entropy, disagreement, distance }: Nucleus): number {
  if (entropy !== null) return entropy;
  if (disagreement !== null) return disagreement;
  return distance === null ? -2 : -distance;
}

/** Nuclei, the least sure first; of equal ones in reading order of their ids. */
export const leastSureFirst = <T extends Nucleus>(nuclei: Iterable<T>): T[] =>
  [...nuclei].sort((a, b) => unsureness(b) - unsureness(a) || a.id - b.id);

/**
 * The nucleus to look at after `current`: the next in order that nobody has decided on, or of all where none is left.
 * `step` -1 goes back. Null where there is none.
 */
export function nextNucleus<T extends Nucleus>(ordered: readonly T[], current: number | null, step: 1 | -1): T | null {
  const open = ordered.some((each) => each.state === "proposed" && each.id !== current);
  const count = ordered.length;
  const start = ordered.findIndex((each) => each.id === current);
  for (let k = 1; k <= count; k++) {
    const index = start < 0 && step < 0 ? count - k : (((start + k * step) % count) + count) % count;
    const each = ordered[index]!;
    if (each.id !== current && (open ? each.state === "proposed" : each.state !== "rejected")) return each;
  }
  return null;
}

/** The item of the queue after `current` (`step` -1: before). Forward only those that are open, where there are. */
export function nextItem(queue: readonly QueueEntry[], current: string | null, step: 1 | -1): QueueEntry | null {
  const start = queue.findIndex((entry) => entry.id === current);
  if (step < 0) return start > 0 ? queue[start - 1]! : null;
  const turned = [...queue.slice(start + 1), ...queue.slice(0, Math.max(0, start))];
  return turned.find((entry) => entry.status === "open") ?? null;
}
