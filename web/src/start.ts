// How the page begins, and what it asks the program now and then.
import { failed, loadQueue, openId, outbox, tabs, take } from "./actions";
import { api, ApiError, askOnly } from "./logic/api";
import * as store from "./store";

const POLL_MS = 3000;
const QUEUE_MS = 5000;

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
      else if (error.status === 0 || error.status === 421) store.unreachable.value = error.message;
      else if (store.notice.value?.text !== error.message) store.tell(error.message, true);
    } finally {
      setTimeout(() => void turn(), wait);
    }
  };
  setTimeout(() => void turn(), wait);
}

async function pollProject(): Promise<void> {
  const last = store.progress.value;
  const next = await api.project();
  tabs.adopt(next.id);
  store.project.value = next;
  store.progress.value = next.progress;
  if (!last || last.done !== next.progress.done || last.state !== next.progress.state) await loadQueue();
  openFirst();
}

/** Loads the project and the queue, and opens the item that the address names, or the first open one. */
async function begin(): Promise<void> {
  const project = await api.project();
  askOnly(project.id);
  store.project.value = project;
  store.progress.value = project.progress;
  document.title = `${project.name} · hemalum review`;
  if (!store.author.value) store.author.value = project.author;
  if (!project.rankings.includes(store.ranking.value)) store.ranking.value = project.by_default;
  tabs.adopt(project.id);
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
