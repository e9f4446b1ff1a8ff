import { expect, it } from "vitest";
import { leastSureFirst, nextItem, nextNucleus } from "../src/logic/order";
import type { Nucleus, NucleusState, QueueEntry, Status } from "../src/logic/types";

const nucleus = (id: number, entropy: number | null, state: NucleusState = "proposed"): Nucleus => ({
  id, entropy, state, points: [], class_name: null, disagreement: null, distance: null, probability: null, by: null,
});
const entry = (id: string, status: Status): QueueEntry => ({
  id, status, name: id, image: "", window: null, stratum: "", rank: 1, of: 1, reason: "", nuclei: null,
});

it("puts the least sure nucleus first, and what nobody knows last", () => {
  const ordered = leastSureFirst([nucleus(1, 0.1), nucleus(2, null), nucleus(3, 0.6), nucleus(4, 0.6)]);
  expect(ordered.map(({ id }) => id)).toEqual([3, 4, 1, 2]);
});

it("goes on to the next nucleus that nobody has decided on, and around", () => {
  const ordered = [nucleus(3, 0.6, "accepted"), nucleus(1, 0.5), nucleus(2, 0.4, "rejected"), nucleus(4, 0.3)];
  expect(nextNucleus(ordered, null, 1)?.id).toBe(1);
  expect(nextNucleus(ordered, 1, 1)?.id).toBe(4);
  expect(nextNucleus(ordered, 4, 1)?.id).toBe(1);
  expect(nextNucleus(ordered, 1, -1)?.id).toBe(4);
  expect(nextNucleus(ordered, null, -1)?.id).toBe(4);
});

it("goes through all that count where each is decided", () => {
  const ordered = [nucleus(1, 0.6, "accepted"), nucleus(2, 0.5, "rejected"), nucleus(3, 0.1, "accepted")];
  expect(nextNucleus(ordered, 1, 1)?.id).toBe(3);
  expect(nextNucleus(ordered, 3, 1)?.id).toBe(1);
  expect(nextNucleus([], null, 1)).toBeNull();
});

it("goes to the next open item, back to any", () => {
  const queue = [entry("a", "open"), entry("b", "reviewed"), entry("c", "open")];
  expect(nextItem(queue, "a", 1)?.id).toBe("c");
  expect(nextItem(queue, "c", 1)?.id).toBe("a");
  expect(nextItem(queue, "c", -1)?.id).toBe("b");
  expect(nextItem(queue, "a", -1)).toBeNull();
  expect(nextItem(queue, null, 1)?.id).toBe("a");
  expect(nextItem([entry("a", "reviewed")], "a", 1)).toBeNull();
});
