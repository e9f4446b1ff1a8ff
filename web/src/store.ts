// What the page knows, as signals; panels and the overlay draw themselves from these.
import { computed, signal } from "@preact/signals";
import type { Box } from "./logic/geometry";
import { leastSureFirst } from "./logic/order";
import type { Failure, Report } from "./logic/outbox";
import type {
  Counts, ImageEntry, ImageFacts, ItemEvent, ItemFacts, Nucleus, Point, Progress, Project, QueueEntry, Status,
} from "./logic/types";

export interface Outlined extends Nucleus {
  ring: Point[];
  box: Box;
}

export type Tool = "select" | "draw" | "propose" | "split" | "reshape";
export type ColorBy = "state" | "class" | "uncertainty";

/** What is being drawn: points of the item, px; `line` while the pointer is down or for a cut. */
export interface Draft {
  kind: "draw" | "propose" | "split" | "reshape" | "box";
  points: Point[];
  closed: boolean;
  id?: number; // of the nucleus that is reshaped
}

const saved = <T>(name: string, otherwise: T): T => {
  const text = localStorage.getItem(`hemalum.${name}`);
  return text === null ? otherwise : (JSON.parse(text) as T);
};
export const remember = (name: string, value: unknown): void =>
  localStorage.setItem(`hemalum.${name}`, JSON.stringify(value));

// the project and its queue
export const project = signal<Project | null>(null);
export const progress = signal<Progress | null>(null);
export const queue = signal<QueueEntry[]>([]);
export const ranking = signal(saved("ranking", ""));
export const stratified = signal(saved("stratified", true));
export const seed = signal(saved("seed", 0));
export const shownStatus = signal<Status | "all">("all");
export const images = signal<ImageEntry[]>([]);
export const author = signal(saved("author", ""));

export const tally = computed(() => {
  const entries = queue.value;
  const reviewed = entries.filter(({ status }) => status === "reviewed").length;
  const skipped = entries.filter(({ status }) => status === "skipped").length;
  return { all: entries.length, reviewed, skipped, open: entries.length - reviewed - skipped };
});

// the item that is open
export const image = signal<ImageFacts | null>(null);
export const item = signal<ItemFacts | null>(null);
export const opening = signal<string | null>(null); // what is said while an item is being opened
export const nuclei = signal<ReadonlyMap<number, Outlined>>(new Map());
export const version = signal(0);
export const counts = signal<Counts | null>(null);
export const events = signal<ItemEvent[]>([]);
export const canUndo = signal(false);
export const canRedo = signal(false);
export const ordered = computed(() => leastSureFirst(nuclei.value.values()));
export const windowOf = computed((): [number, number, number, number] | null => {
  const current = item.value;
  return current && (current.window ?? [0, 0, current.width, current.height]);
});

// what is chosen and drawn
export const tool = signal<Tool>("select");
export const chosen = signal<ReadonlySet<number>>(new Set());
export const hovered = signal<number | null>(null);
export const draft = signal<Draft | null>(null);
export const thinking = signal<string | null>(null); // what the model is asked for

// what is shown
export const layers = {
  outlines: signal(saved("outlines", true)),
  fill: signal(saved("fill", false)),
  rejected: signal(saved("rejected", true)),
  context: signal(saved("context", true)),
};
export const map = signal<"none" | "probability" | "entropy">("none");
export const colorBy = signal<ColorBy>(saved("colorBy", "state"));
export const opacity = { outlines: signal(saved("outlineOpacity", 1)), fill: signal(saved("fillOpacity", 0.35)), map: signal(saved("mapOpacity", 0.6)) };
export const hidden = signal(false);

// what is saved, and what is said
export const report = signal<Report>({ state: "saved", pending: [], failed: [], message: null, unauthorized: false });
export const unreachable = signal<string | null>(null); // why the program cannot be asked
export const unauthorized = signal(false);
export const notice = signal<{ text: string; error: boolean } | null>(null);
export const spoken = signal("");
export const helpOpen = signal(false);
export const drawer = signal<"left" | "right" | null>(null);
export const failures = computed<readonly Failure[]>(() => report.value.failed);

/** Says something to people who listen to the page. */
export function speak(text: string): void {
  // the same text twice is read twice: a screen reader needs a change
  spoken.value = spoken.value === text ? `${text} ` : text;
}

let noticeTimer: ReturnType<typeof setTimeout> | undefined;

/** Shows a line for some seconds; an error until the next one or a click. */
export function tell(text: string, error = false): void {
  clearTimeout(noticeTimer);
  notice.value = { text, error };
  speak(text);
  if (!error) noticeTimer = setTimeout(() => (notice.value = null), 4000);
}
