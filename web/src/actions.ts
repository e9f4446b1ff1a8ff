// What a reviewer does: opens items, edits, goes on. Everything that the keyboard and the buttons ask for.
import { batch } from "@preact/signals";
import { api, ApiError } from "./logic/api";
import { boundsOf, toPoints } from "./logic/geometry";
import { nextItem, nextNucleus } from "./logic/order";
import { Outbox, type Entry, type Failure } from "./logic/outbox";
import type { Changes, EditRequest, Nucleus, Point, Status } from "./logic/types";
import { keepTabs } from "./tabs";
import * as store from "./store";

const SAYS: Record<string, string> = {
  add: "Nucleus added", delete: "Deleted", split: "Split", merge: "Merged", reshape: "Outline changed",
  classify: "Class changed", accept: "Accepted", reject: "Rejected", mark: "Item marked", undo: "Undone", redo: "Redone",
};

const outline = (nucleus: Nucleus): store.Outlined => {
  const ring = toPoints(nucleus.points);
  return { ...nucleus, ring, box: boundsOf(ring) };
};

/** Shows what the server said about a call that failed; what it will be asked again is said in the banner. */
export function failed(error: unknown): void {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401) store.unauthorized.value = true;
  else if (error.status === 0 || error.status === 421) store.unreachable.value = error.message;
  else store.tell(error.message, true);
}

export const outbox = new Outbox(
  {
    send: ({ item, what, parent, author }) =>
      what.kind === "undo" || what.kind === "redo"
        ? api.turn(item, what.kind, parent, author)
        : api.edit(item, what as EditRequest, parent, author),
    changes: api.changes,
  },
  { write: (text) => tabs.write(text) },
  (report) => (store.report.value = report),
  onSaved,
  onRefused,
);
export const tabs = keepTabs(
  (text) => outbox.adopt(text),
  () => store.tell("The browser has no room for what is not saved yet: leave this page open until it says Saved", true),
);

function onSaved(entry: Entry, changes: Changes): void {
  store.unreachable.value = null;
  if (entry.what.kind === "mark") setStatus(entry.item, (entry.what as EditRequest).status!);
  if (store.item.value?.id !== entry.item) return;
  const before = store.nuclei.value;
  take(changes);
  const made = changes.changed.filter(({ id }) => !before.has(id)).map(({ id }) => id);
  if (["add", "merge", "split"].includes(entry.what.kind) && made.length) choose(made);
  if (store.notice.value?.error) store.notice.value = null;
  store.speak(`${SAYS[entry.what.kind] ?? entry.what.kind}. Saved.`);
}

function onRefused(failure: Failure): void {
  const turned = failure.what.kind === "undo" || failure.what.kind === "redo";
  store.tell(turned ? failure.message : `Not saved: ${failure.message}`, true);
  if (failure.conflict && store.item.value?.id === failure.item) void loadNuclei(failure.item);
  if (failure.what.kind === "mark") void reloadQueue(); // which shows it as marked already
}

/** Takes changes of the open item over. */
export function take(changes: Changes): void {
  if (changes.version < store.version.value) return;
  batch(() => {
    if (changes.changed.length || changes.removed.length) {
      const next = new Map(store.nuclei.value);
      for (const id of changes.removed) next.delete(id);
      for (const nucleus of changes.changed) next.set(nucleus.id, outline(nucleus));
      store.nuclei.value = next;
      const left = [...store.chosen.value].filter((id) => next.has(id));
      if (left.length !== store.chosen.value.size) store.chosen.value = new Set(left);
    }
    const known = new Set(store.events.value.map(({ id }) => id));
    const fresh = changes.events.filter(({ id }) => !known.has(id));
    if (fresh.length) store.events.value = [...store.events.value, ...fresh];
    store.version.value = changes.version;
    store.counts.value = changes.counts;
    store.canUndo.value = changes.can_undo;
    store.canRedo.value = changes.can_redo;
    const item = store.item.value;
    if (item && item.status !== changes.status) {
      store.item.value = { ...item, status: changes.status };
      setStatus(item.id, changes.status);
    }
  });
}

function setStatus(id: string, status: Status): void {
  store.queue.value = store.queue.value.map((entry) => (entry.id === id ? { ...entry, status } : entry));
  const item = store.item.value;
  if (item?.id === id && item.status !== status) store.item.value = { ...item, status };
  const image = store.image.value;
  if (image) {
    store.image.value = { ...image, items: image.items.map((one) => (one.id === id ? { ...one, status } : one)) };
  }
}

// opening

let opened = 0;

/** Opens an item of the queue, or what lies at a point of an image. */
export async function openItem(ask: () => ReturnType<typeof api.item>, says: string): Promise<void> {
  const turn = (opened += 1);
  store.opening.value = says;
  try {
    const item = await patiently(ask, () => turn === opened);
    if (!item || turn !== opened) return;
    const same = store.image.value?.id === item.image;
    const [image, { version, nuclei }] = await Promise.all([
      same ? store.image.value! : api.image(item.image), api.nuclei(item.id),
    ]);
    if (turn !== opened) return;
    batch(() => {
      store.image.value = image;
      store.item.value = item;
      store.nuclei.value = new Map(nuclei.map((nucleus) => [nucleus.id, outline(nucleus)]));
      store.version.value = version;
      store.counts.value = item.counts;
      store.canUndo.value = item.can_undo;
      store.canRedo.value = item.can_redo;
      store.events.value = [];
      store.chosen.value = new Set();
      store.hovered.value = null;
      store.draft.value = null;
      store.drawer.value = null;
      store.notice.value = null;
    });
    store.remember("item", item.id);
    location.hash = item.id;
    store.speak(`${item.name}, ${item.counts.nuclei} nuclei, ${item.status}. ${item.reason ?? ""}`);
    void api.changes(item.id, 0, store.author.value).then((changes) => {
      if (store.item.value?.id === item.id && changes.version === store.version.value) store.events.value = changes.events;
    }, failed);
  } catch (error) {
    failed(error);
  } finally {
    if (turn === opened) store.opening.value = null;
  }
}

export const openId = (id: string, name: string): Promise<void> =>
  openItem(() => api.item(id, store.author.value), `Opening ${name}`);

export const openAt = (image: string, [x, y]: Point): Promise<void> =>
  openItem(() => api.itemAt(image, x, y, store.author.value), "Opening the field there");

/** Opens an image at its middle: a slide has fields all over. */
export async function openImage(id: string): Promise<void> {
  const entry = store.images.value.find((one) => one.id === id);
  if (entry) await openAt(id, [entry.width / 2, entry.height / 2]);
}

/** Asks until the model has looked at what is asked for (503), as long as anybody wants it. */
async function patiently<T>(ask: () => Promise<T>, wanted: () => boolean): Promise<T | null> {
  while (wanted()) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 503) throw error;
      store.opening.value = "The model looks at this field";
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 1) * 1000));
    }
  }
  return null;
}

async function loadNuclei(id: string): Promise<void> {
  try {
    const { version, nuclei } = await api.nuclei(id);
    if (store.item.value?.id !== id) return;
    store.nuclei.value = new Map(nuclei.map((nucleus) => [nucleus.id, outline(nucleus)]));
    store.chosen.value = new Set([...store.chosen.value].filter((one) => store.nuclei.value.has(one)));
    const changes = await api.changes(id, 0, store.author.value);
    if (store.item.value?.id !== id || changes.version < version) return;
    store.events.value = changes.events;
    take(changes);
  } catch (error) {
    failed(error);
  }
}

// edits

export function send(what: Entry["what"]): void {
  const item = store.item.value;
  if (!item) return;
  outbox.push({ item: item.id, itemName: item.name, parent: store.version.value, author: store.author.value, what });
}

const idsChosen = (): number[] => [...store.chosen.value].sort((a, b) => a - b);

function needChosen(least = 1): number[] | null {
  const ids = idsChosen();
  if (ids.length >= least) return ids;
  store.tell(least > 1 ? "Choose two or more nuclei first: click them with Shift held" : "Choose a nucleus first");
  return null;
}

export function decide(kind: "accept" | "reject" | "delete"): void {
  const ids = needChosen();
  if (!ids) return;
  send({ kind, ids });
  if (ids.length > 1) return;
  const next = nextNucleus(store.ordered.value, ids[0]!, 1);
  if (next && next.state === "proposed" && kind !== "delete") choose([next.id], true);
}

export function merge(): void {
  const ids = needChosen(2);
  if (ids) send({ kind: "merge", ids });
}

export function classify(number: number): void {
  const names = store.item.value?.class_names ?? [];
  if (number > names.length) {
    store.tell(names.length ? `There are ${names.length} classes` : "This model has no classes");
    return;
  }
  const ids = needChosen();
  if (ids) send({ kind: "classify", ids, class_name: number ? names[number - 1]! : null });
}

export function acceptAll(): void {
  const ids = [...store.nuclei.value.values()].filter(({ state }) => state === "proposed").map(({ id }) => id);
  if (!ids.length) {
    store.tell("Each nucleus is decided on already");
    return;
  }
  const most = store.project.value?.limits.nuclei ?? 1000;
  for (let i = 0; i < ids.length; i += most) send({ kind: "accept", ids: ids.slice(i, i + most) });
  store.tell(`${ids.length.toLocaleString("en-US")} accepted`);
}

export function turn(way: "undo" | "redo"): void {
  const item = store.item.value;
  if (!item) return;
  if (store.draft.value) {
    const { points, closed, ...rest } = store.draft.value;
    store.draft.value = points.length > 1 && !closed ? { ...rest, closed, points: points.slice(0, -1) } : null;
    return;
  }
  if (way === "undo" && outbox.takeBack(item.id)) return;
  send({ kind: way });
}

export function mark(status: Status): void {
  const item = store.item.value;
  if (!item) return;
  send({ kind: "mark", status });
  if (status === "open") return;
  setStatus(item.id, status);
  goItem(1, status === "reviewed" ? "That was the last open item of this list" : undefined);
}

// tools

export function cancel(): void {
  if (store.helpOpen.value) store.helpOpen.value = false;
  else if (store.draft.value) store.draft.value = null;
  else if (store.notice.value) store.notice.value = null;
  else if (store.chosen.value.size) store.chosen.value = new Set();
  else if (store.drawer.value) store.drawer.value = null;
  else store.tool.value = "select";
}

export function setTool(tool: store.Tool): void {
  store.draft.value = null;
  store.tool.value = tool;
  if (tool === "reshape" && store.chosen.value.size !== 1) store.tell("Choose the nucleus to reshape: click it");
}

// choosing

let showNucleus: (nucleus: store.Outlined) => void = () => {};

/** What brings a nucleus into view; the viewer sets it. */
export const onShow = (show: typeof showNucleus): void => void (showNucleus = show);

export function describe({ id, state, class_name, entropy, probability }: Nucleus): string {
  const facts = [`Nucleus ${id}`, state, class_name ?? ""];
  if (entropy !== null) facts.push(`uncertainty ${Math.round((entropy / Math.LN2) * 100)}%`);
  if (probability !== null) facts.push(`probability ${Math.round(probability * 100)}%`);
  return facts.filter(Boolean).join(", ");
}

export function choose(ids: readonly number[], show = false): void {
  store.chosen.value = new Set(ids);
  const first = ids.length ? store.nuclei.value.get(ids[0]!) : undefined;
  if (ids.length === 1 && first) store.speak(describe(first));
  else if (ids.length) store.speak(`${ids.length} nuclei chosen`);
  if (show && first) showNucleus(first);
}

export function goNucleus(step: 1 | -1): void {
  const ids = idsChosen();
  const next = nextNucleus(store.ordered.value, ids.length === 1 ? ids[0]! : null, step);
  if (next) choose([next.id], true);
  else store.tell("There is no nucleus to look at");
}

export function goItem(step: 1 | -1, none = "There is no further open item in this list"): void {
  const next = nextItem(store.queue.value, store.item.value?.id ?? null, step);
  if (next) void openId(next.id, next.name);
  else store.tell(step > 0 ? none : "This is the first item");
}

// what could not be saved

export const retry = (): void => outbox.retry();
export const discard = (failure: Failure): void => outbox.discard(failure);
export const again = (failure: Failure): void =>
  outbox.again(failure, failure.item === store.item.value?.id ? store.version.value : failure.parent);

// the queue

export async function loadQueue(): Promise<void> {
  const { items, progress } = await api.queue(
    store.ranking.value, store.stratified.value, store.seed.value, "all",
  );
  batch(() => {
    const marks = new Map(
      store.report.value.pending.flatMap(({ item, what }): [string, Status][] =>
        what.kind === "mark" ? [[item, (what as EditRequest).status!]] : [],
      ),
    );
    store.queue.value = items.map((entry) => ({ ...entry, status: marks.get(entry.id) ?? entry.status }));
    store.progress.value = progress;
  });
}

export async function reloadQueue(): Promise<void> {
  try {
    await loadQueue();
  } catch (error) {
    failed(error);
  }
}
