// What a reviewer does: opens items, edits, goes on. Everything that the keyboard and the buttons ask for.
import { batch } from "@preact/signals";
import { api, ApiError } from "./logic/api";
import { asOutline, boundsOf, crossesItself, lengthInside, lengthen, meets, snap, toPoints } from "./logic/geometry";
import { nextItem, nextNucleus } from "./logic/order";
import { Outbox, type Entry, type Failure } from "./logic/outbox";
import type { Changes, EditRequest, Nucleus, Point, Status } from "./logic/types";
import { keepTabs } from "./tabs";
import * as store from "./store";

const POLL_MS = 3000;
const QUEUE_MS = 5000;
const SAYS: Record<string, string> = {
  add: "Nucleus added", delete: "Deleted", split: "Split", merge: "Merged", reshape: "Outline changed",
  classify: "Class changed", accept: "Accepted", reject: "Rejected", mark: "Item marked", undo: "Undone", redo: "Redone",
};

const outline = (nucleus: Nucleus): store.Outlined => {
  const ring = toPoints(nucleus.points);
  return { ...nucleus, ring, box: boundsOf(ring) };
};

/** Shows what the server said about a call that failed; what it will be asked again is said in the banner. */
function failed(error: unknown): void {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401) store.unauthorized.value = true;
  else if (error.status === 0) store.unreachable.value = error.message;
  else store.tell(error.message, true);
}

const outbox = new Outbox(
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
const tabs = keepTabs((text) => outbox.adopt(text));

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
  store.tell(`Not saved: ${failure.message}`, true);
  if (failure.conflict && store.item.value?.id === failure.item) void loadNuclei(failure.item);
}

/** Takes changes of the open item over. */
function take(changes: Changes): void {
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

function send(what: Entry["what"]): void {
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

// drawing

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

// asking the server now and then

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

async function pollItem(): Promise<void> {
  const item = store.item.value;
  if (!item || document.hidden || store.report.value.state !== "saved") return;
  const changes = await api.changes(item.id, store.version.value, store.author.value);
  if (store.item.value?.id !== item.id || store.report.value.state !== "saved") return;
  const others = [...new Set(changes.events.map((event) => event.author))].filter((one) => one !== store.author.value);
  take(changes);
  if (others.length && changes.changed.length + changes.removed.length) store.tell(`Changed by ${others.join(", ")}`);
}

function every(wait: number, ask: () => Promise<void>): void {
  const turn = async (): Promise<void> => {
    try {
      await ask();
      if (store.unreachable.value !== null) {
        store.unreachable.value = null;
        outbox.retry();
      }
      store.unauthorized.value = false;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) store.unauthorized.value = true;
      else if (error.status === 0) store.unreachable.value = error.message;
      else if (error.status === 410) store.tell(error.message, true);
    } finally {
      setTimeout(() => void turn(), wait);
    }
  };
  setTimeout(() => void turn(), wait);
}

async function pollProject(): Promise<void> {
  const last = store.progress.value;
  const next = await api.project();
  tabs.adopt();
  store.project.value = next;
  store.progress.value = next.progress;
  if (!last || last.done !== next.progress.done || last.state !== next.progress.state) await loadQueue();
  openFirst();
}

/** Loads the project and the queue, and opens the item that the address names, or the first open one. */
async function begin(): Promise<void> {
  const project = await api.project();
  store.project.value = project;
  store.progress.value = project.progress;
  document.title = `${project.name} · hemalum review`;
  if (!store.author.value) store.author.value = project.author;
  if (!project.rankings.includes(store.ranking.value)) store.ranking.value = project.by_default;
  tabs.adopt();
  await loadQueue();
  store.images.value = await api.images();
  const wanted = location.hash.slice(1);
  if (/^[0-9a-f]{16}$/.test(wanted)) {
    await openId(wanted, store.queue.value.find(({ id }) => id === wanted)?.name ?? "the item");
  } else openFirst();
}

/** Opens the first open item of the queue, where there is one and nothing is open or being opened. */
function openFirst(): void {
  if (store.item.value || store.opening.value) return;
  const first = store.queue.value.find(({ status }) => status === "open") ?? store.queue.value[0];
  if (first) void openId(first.id, first.name);
}

/** Begins as soon as the program answers, then asks it now and then what is new. */
export async function start(): Promise<void> {
  for (let begun = false; !begun; ) {
    try {
      await begin();
      begun = true;
      store.unreachable.value = null;
      store.unauthorized.value = false;
    } catch (error) {
      failed(error);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
  addEventListener("hashchange", () => {
    const id = location.hash.slice(1);
    if (id && id !== store.item.value?.id) void openId(id, store.queue.value.find((entry) => entry.id === id)?.name ?? "the item");
  });
  every(POLL_MS, pollItem);
  every(QUEUE_MS, pollProject);
}
