// Calls of the server. Every failure is an ApiError: its status, 0 where the server did not answer, and one line.
import type {
  Changes, EditRequest, ImageEntry, ImageFacts, ItemFacts, MapKind, Nucleus, Point, Project, QueueEntry, Progress,
} from "./types";

const PREFIX = "/api/v1";
const TIMEOUT_MS = 60_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly body: { touched?: number; author?: string; time?: string; version?: number } = {},
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

let project: string | null = null;

/** From now on only the program that reviews this project is to answer: else 421. */
export const askOnly = (id: string): void => void (project = id);

async function call<T>(path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = project === null ? {} : { "X-Hemalum-Project": project };
  const init: RequestInit = { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store", headers };
  if (body !== undefined) {
    init.method = "POST";
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(PREFIX + path, init);
  } catch {
    throw new ApiError(0, "the program does not answer");
  }
  if (response.ok) {
    try {
      return (await response.json()) as T;
    } catch {
      throw new ApiError(0, "the program's answer was cut off");
    }
  }
  const wait = Number(response.headers.get("Retry-After"));
  const text = await response.json().catch(() => ({}));
  const detail = typeof text.detail === "string" ? text.detail : `the program answers ${response.status}`;
  throw new ApiError(response.status, detail, text, wait > 0 ? wait : null);
}

const query = (values: Record<string, string | number | boolean>): string =>
  new URLSearchParams(Object.entries(values).map(([name, value]) => [name, String(value)])).toString();

const at = (id: string): string => `/items/${encodeURIComponent(id)}`;

export const api = {
  project: () => call<Project>("/project"),
  queue: (by: string, stratified: boolean, seed: number, status: string) =>
    call<{ progress: Progress; items: QueueEntry[] }>(`/queue?${query({ by, stratified, seed, status })}`),
  images: () => call<ImageEntry[]>("/images"),
  image: (id: string) => call<ImageFacts>(`/images/${encodeURIComponent(id)}`),
  itemAt: (image: string, x: number, y: number, author: string) =>
    call<ItemFacts>(`/images/${encodeURIComponent(image)}/item?${query({ x, y, author })}`),
  item: (id: string, author: string) => call<ItemFacts>(`${at(id)}?${query({ author })}`),
  nuclei: (id: string) => call<{ version: number; nuclei: Nucleus[] }>(`${at(id)}/nuclei`),
  changes: (id: string, after: number, author: string) =>
    call<Changes>(`${at(id)}/changes?${query({ after, author })}`),
  edit: (id: string, edit: EditRequest, parent: number, author: string) =>
    call<Changes>(`${at(id)}/edits`, { ...edit, parent, author }),
  turn: (id: string, way: "undo" | "redo", parent: number, author: string) =>
    call<Changes>(`${at(id)}/${way}`, { parent, author }),
  proposal: (id: string, x: number, y: number) =>
    call<{ points: (Point | number)[] | null }>(`${at(id)}/proposal?${query({ x, y })}`),
  tile: (image: string, level: number, x: number, y: number) =>
    `${PREFIX}/images/${encodeURIComponent(image)}/tiles/${level}/${x}_${y}.jpg`,
  outlines: (image: string, level: number, x: number, y: number) =>
    `${PREFIX}/images/${encodeURIComponent(image)}/outlines/${level}/${x}_${y}.bin`,
  density: (image: string, level: number, x: number, y: number) =>
    `${PREFIX}/images/${encodeURIComponent(image)}/density/${level}/${x}_${y}.png`,
  map: (id: string, kind: MapKind) => `${PREFIX}${at(id)}/maps/${kind}.png`,
};
