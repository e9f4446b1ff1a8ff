// The left panel: which items are looked at, in what order and why; or all images.
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import * as actions from "../actions";
import type { QueueEntry, Status } from "../logic/types";
import * as store from "../store";
import { number, plural } from "./parts";

const RANKINGS: Record<string, string> = {
  entropy: "Least sure first", disagreement: "Mirror images disagree", outliers: "Unusual size or shape", random: "At random",
};
const MARKS: Record<Status, string> = { open: "○", reviewed: "✓", skipped: "»" };
const STEP = 150;

const tab = signal<"queue" | "images">("queue");
const most = signal(STEP);

function Bar({ done, total, label }: { done: number; total: number; label: string }): JSX.Element {
  return (
    <div class="progress">
      <div class="row"><span>{label}</span><span>{number(done)} of {number(total)}</span></div>
      <progress value={done} max={Math.max(total, 1)} aria-label={`${label}: ${done} of ${total}`} />
    </div>
  );
}

/** A name that may be cut short, and of a window where it lies, which may not. */
export function Name({ name, window }: Pick<QueueEntry, "name" | "window">): JSX.Element {
  const place = window?.join(",");
  const whole = place && name.endsWith(place) ? name.slice(0, -place.length).trim() : name;
  return (
    <span class="name" title={name}>
      <span class="whole">{whole}</span>
      {window && whole !== name && <span class="place">at {window[0]}, {window[1]}</span>}
    </span>
  );
}

function Entry({ entry, current }: { entry: QueueEntry; current: boolean }): JSX.Element {
  const here = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (current) here.current?.scrollIntoView({ block: "nearest" });
  }, [current]);
  return (
    <li>
      <button
        type="button"
        ref={here}
        class={`entry ${entry.status}`}
        aria-current={current ? "true" : undefined}
        onClick={() => void actions.openId(entry.id, entry.name)}
      >
        <span class="mark" role="img" aria-label={entry.status}>{MARKS[entry.status]}</span>
        <span class="text">
          <Name {...entry} />
          <span class="facts">
            {entry.stratum && !entry.name.startsWith(entry.stratum) && <span class="stratum">{entry.stratum}</span>}
            {entry.nuclei !== null && <span>{plural(entry.nuclei, "nucleus", "nuclei")}</span>}
          </span>
          <span class="reason" title={entry.reason}>{entry.reason.replace(/ \([^)]*\)/, "")}</span>
        </span>
      </button>
    </li>
  );
}

function QueueList(): JSX.Element {
  const wanted = store.shownStatus.value;
  const entries = store.queue.value.filter(({ status }) => wanted === "all" || status === wanted);
  const strata = new Set(store.queue.value.map(({ stratum }) => stratum));
  const current = store.item.value?.id;
  const at = entries.findIndex(({ id }) => id === current);
  const shown = entries.slice(0, Math.max(most.value, at + 20));
  return (
    <>
      <div class="choices">
        <label>
          <span>Order</span>
          <select
            value={store.ranking.value}
            onChange={(event) => {
              store.ranking.value = event.currentTarget.value;
              store.remember("ranking", store.ranking.value);
              void actions.reloadQueue();
            }}
          >
            {(store.project.value?.rankings ?? []).map((name) => <option value={name}>{RANKINGS[name] ?? name}</option>)}
          </select>
        </label>
        <label>
          <span>Show</span>
          <select value={wanted} onChange={(event) => (store.shownStatus.value = event.currentTarget.value as Status | "all")}>
            <option value="all">All</option>
            <option value="open">Open</option>
            <option value="reviewed">Reviewed</option>
            <option value="skipped">Skipped</option>
          </select>
        </label>
        {strata.size > 1 && <label class="check wide">
          <input
            type="checkbox"
            checked={store.stratified.value}
            onChange={(event) => {
              store.stratified.value = event.currentTarget.checked;
              store.remember("stratified", store.stratified.value);
              void actions.reloadQueue();
            }}
          />
          <span title="The first of each organ, folder or slide, then the second of each">Organs, folders, slides in turn</span>
        </label>}
      </div>
      {!entries.length && (
        <p class="empty">
          {store.queue.value.length ? `No item is ${wanted}.` : store.progress.value?.state === "running"
            ? "The model looks at the first images." : "There is nothing to review."}
        </p>
      )}
      <ol class="entries" aria-label="Items to review">
        {shown.map((entry) => <Entry key={entry.id} entry={entry} current={entry.id === current} />)}
      </ol>
      {shown.length < entries.length && (
        <button type="button" class="more" onClick={() => (most.value = shown.length + STEP)}>
          Show more ({number(entries.length - shown.length)})
        </button>
      )}
    </>
  );
}

function ImageList(): JSX.Element {
  return (
    <ol class="entries" aria-label="Images">
      {store.images.value.map(({ id, name, width, height, is_slide, nuclei }) => (
        <li key={id}>
          <button
            type="button"
            class="entry"
            aria-current={store.image.value?.id === id ? "true" : undefined}
            onClick={() => void actions.openImage(id)}
          >
            <span class="text">
              <span class="name" title={name}>{name}</span>
              <span class="facts">
                <span>{is_slide ? "slide" : "image"}</span>
                <span>{number(width)} × {number(height)} px</span>
                {nuclei !== null && <span>{plural(nuclei, "nucleus", "nuclei")}</span>}
              </span>
            </span>
          </button>
        </li>
      ))}
    </ol>
  );
}

export function QueuePanel(): JSX.Element {
  const progress = store.progress.value;
  const tally = store.tally.value;
  const failures = store.project.value?.failures ?? [];
  return (
    <div class="scroll">
      <div class="tabs" role="group" aria-label="What is listed">
        <button type="button" aria-pressed={tab.value === "queue"} onClick={() => (tab.value = "queue")}>Queue</button>
        <button type="button" aria-pressed={tab.value === "images"} onClick={() => (tab.value = "images")}>Images</button>
      </div>
      <Bar label="Reviewed" done={tally.reviewed} total={tally.all} />
      {progress?.state === "running" && <Bar label="Looked at by the model" done={progress.done} total={progress.total} />}
      {progress?.message && !failures.length && <p class="warning">{progress.message}</p>}
      {failures.length > 0 && (
        <details class="warning">
          <summary>{plural(failures.length, "image or field", "images or fields")} cannot be reviewed</summary>
          <ul>{failures.map(({ name, message }) => <li key={name}>{name}: {message}</li>)}</ul>
        </details>
      )}
      {tab.value === "queue" ? <QueueList /> : <ImageList />}
    </div>
  );
}
