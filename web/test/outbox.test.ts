import { beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError } from "../src/logic/api";
import { hasTakenEffect, Outbox, type Entry, type Failure, type Report, type What } from "../src/logic/outbox";
import type { Changes, Nucleus } from "../src/logic/types";

const counts = { nuclei: 0, proposed: 0, accepted: 0, rejected: 0, added: 0 };
const changes = (version: number, some: Partial<Changes> = {}): Changes => ({
  version, status: "open", changed: [], removed: [], counts, can_undo: true, can_redo: false,
  events: [{ id: version, author: "Anna", time: "", kind: "accept" }], ...some,
});
const nucleus = (id: number, some: Partial<Nucleus> = {}): Nucleus => ({
  id, points: [0, 0, 10, 0, 10, 10, 0, 10], class_name: null, state: "accepted", entropy: null, disagreement: null,
  distance: null, probability: null, by: "Anna", ...some,
});
const entry = (what: What, parent = 4): Omit<Entry, "unsure"> => ({
  item: "i", itemName: "kidney", parent, author: "Anna", what,
});
const accept = (id: number): What => ({ kind: "accept", ids: [id] });

let kept: string | null;
let reports: Report[];
let saved: Entry[];
let failed: Failure[];
const send = vi.fn<(entry: Entry) => Promise<Changes>>();
const look = vi.fn<(item: string, after: number, author: string) => Promise<Changes>>();

function outbox(): Outbox {
  const keeper = { write: (text: string | null) => void (kept = text) };
  return new Outbox({ send, changes: look }, keeper, (report) => reports.push(report),
    (one) => saved.push(one), (one) => failed.push(one));
}

beforeEach(() => {
  vi.useFakeTimers();
  send.mockReset();
  look.mockReset();
  [kept, reports, saved, failed] = [null, [], [], []];
});

describe("the outbox", () => {
  it("sends edits one after another, each on the version that the one before gave", async () => {
    const parents: number[] = [];
    send.mockImplementation(async (one) => (parents.push(one.parent), changes(one.parent + 1)));
    const box = outbox();
    box.push(entry(accept(1)));
    box.push(entry(accept(2)));
    await vi.runAllTimersAsync();
    expect(parents).toEqual([4, 5]);
    expect(saved).toHaveLength(2);
    expect([reports.at(-1)?.state, kept]).toEqual(["saved", null]);
  });

  it("stays on the old version where another has changed the item in between", async () => {
    const parents: number[] = [];
    send.mockImplementation(async (one) => {
      parents.push(one.parent);
      return changes(9, { events: [{ id: 8, author: "Ben", time: "", kind: "accept" }] });
    });
    const box = outbox();
    box.push(entry(accept(1)));
    box.push(entry(accept(2)));
    await vi.runAllTimersAsync();
    expect(parents).toEqual([4, 4]);
  });

  it("keeps what the server does not take, says so, and sends it when the server is back", async () => {
    send.mockRejectedValueOnce(new ApiError(0, "the program does not answer"));
    look.mockResolvedValue(changes(4, { events: [] }));
    send.mockResolvedValue(changes(5));
    const box = outbox();
    box.push(entry(accept(1)));
    await vi.advanceTimersByTimeAsync(0);
    expect(reports.at(-1)).toMatchObject({ state: "waiting", message: "the program does not answer" });
    expect(kept).toContain('"ids":[1]');
    await vi.runAllTimersAsync();
    expect(saved).toHaveLength(1);
    expect(reports.at(-1)?.state).toBe("saved");
  });

  it("does not save twice what was saved before the answer was lost", async () => {
    send.mockRejectedValueOnce(new ApiError(0, "the program does not answer"));
    look.mockResolvedValue(changes(5, { changed: [nucleus(1)] }));
    const box = outbox();
    box.push(entry(accept(1)));
    await vi.runAllTimersAsync();
    expect(send).toHaveBeenCalledTimes(1);
    expect(saved).toHaveLength(1);
  });

  it("keeps a refused edit, with the reason, until it is sent again or given up", async () => {
    send.mockRejectedValueOnce(new ApiError(409, "nucleus 1 was changed by Ben"));
    send.mockResolvedValue(changes(8));
    const box = outbox();
    box.push(entry(accept(1)));
    await vi.runAllTimersAsync();
    expect(failed[0]).toMatchObject({ message: "nucleus 1 was changed by Ben", conflict: true });
    expect(kept).toContain("changed by Ben");
    box.again(reports.at(-1)!.failed[0]!, 7);
    await vi.runAllTimersAsync();
    expect(send.mock.lastCall?.[0].parent).toBe(7);
    expect(kept).toBeNull();
  });

  it("goes on with what an earlier page left", async () => {
    send.mockResolvedValue(changes(5));
    outbox().adopt(JSON.stringify({ pending: [{ ...entry(accept(1)), unsure: false }], failed: [] }));
    await vi.runAllTimersAsync();
    expect(saved).toHaveLength(1);
  });

  it("takes back what was not sent yet, and nothing that was", async () => {
    send.mockRejectedValue(new ApiError(429, "too many"));
    const box = outbox();
    box.push(entry(accept(1)));
    box.push(entry(accept(2)));
    await vi.advanceTimersByTimeAsync(0);
    expect([box.takeBack("i"), box.takeBack("i"), box.takeBack("i")]).toEqual([true, true, false]);
    expect(kept).toBeNull();
  });

  it("sends each undo, however fast they follow one another", async () => {
    send.mockImplementation(async (one) => changes(one.parent + 1));
    const box = outbox();
    for (let i = 0; i < 4; i++) if (!box.takeBack("i")) box.push(entry({ kind: "undo" }));
    await vi.runAllTimersAsync();
    expect(saved.map(({ what }) => what.kind)).toEqual(["undo", "undo", "undo", "undo"]);
  });

  it("does not save twice where the program is started again, and wants its new link, before it can be asked", async () => {
    send.mockRejectedValueOnce(new ApiError(0, "no answer"));
    look.mockRejectedValueOnce(new ApiError(401, "open the link")).mockResolvedValue(changes(5, {
      events: [{ id: 5, author: "Anna", time: "", kind: "undo" }],
    }));
    const box = outbox();
    box.push(entry({ kind: "undo" }));
    await vi.runAllTimersAsync();
    expect(send).toHaveBeenCalledTimes(1);
    expect(reports.at(-1)?.state).toBe("saved");
  });

  it("says that there is nothing to undo, and keeps nothing that could be saved again", async () => {
    send.mockRejectedValue(new ApiError(400, "there is nothing of Anna to undo"));
    const box = outbox();
    box.push(entry({ kind: "undo" }));
    await vi.runAllTimersAsync();
    expect(failed.map(({ message }) => message)).toEqual(["there is nothing of Anna to undo"]);
    expect([reports.at(-1)?.failed, kept]).toEqual([[], null]);
  });

  it("asks for the link where the token is not taken", async () => {
    send.mockRejectedValue(new ApiError(401, "open the link"));
    const box = outbox();
    box.push(entry(accept(1)));
    await vi.advanceTimersByTimeAsync(0);
    expect(reports.at(-1)).toMatchObject({ state: "waiting", unauthorized: true });
  });
});

describe("an edit whose answer was lost", () => {
  const lost = (what: What): Entry => ({ ...entry(what), unsure: true });
  const by = (kind: string, some: Partial<Changes> = {}): Changes =>
    changes(5, { events: [{ id: 5, author: "Anna", time: "", kind }], ...some });

  it("is saved where the changes have it", () => {
    const points: [number, number][] = [[1, 1], [9, 1], [9, 9]];
    expect(hasTakenEffect(lost({ kind: "add", points }), by("add", { changed: [nucleus(9)] }))).toBe(true);
    expect(hasTakenEffect(lost({ kind: "delete", ids: [3] }), by("delete", { removed: [3] }))).toBe(true);
    expect(hasTakenEffect(lost({ kind: "mark", status: "open" }), by("mark"))).toBe(true);
    expect(hasTakenEffect(lost({ kind: "undo" }), by("undo"))).toBe(true);
    expect(hasTakenEffect(lost({ kind: "classify", ids: [1], class_name: null }),
      by("classify", { changed: [nucleus(1)] }))).toBe(true);
  });
  it("is not where the event is of another, or of other nuclei", () => {
    expect(hasTakenEffect({ ...lost(accept(1)), author: "Ben" }, changes(5, { changed: [nucleus(1)] }))).toBe(false);
    expect(hasTakenEffect(lost(accept(2)), changes(5, { changed: [nucleus(1)] }))).toBe(false);
    expect(hasTakenEffect(lost({ kind: "add", points: [[50, 50], [60, 50], [60, 60]] }),
      by("add", { changed: [nucleus(9)] }))).toBe(false);
    expect(hasTakenEffect(lost({ kind: "merge", ids: [1, 2] }), by("merge", { removed: [1] }))).toBe(false);
  });
});
