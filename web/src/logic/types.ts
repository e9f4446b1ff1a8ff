// What the API of `hemalum review` takes and gives; points are px of the item, x right, y down.

export type Status = "open" | "reviewed" | "skipped";
export type NucleusState = "proposed" | "accepted" | "rejected";
export type Kind = "add" | "delete" | "split" | "merge" | "reshape" | "classify" | "accept" | "reject" | "mark";
export type MapKind = "probability" | "entropy";
export type Point = readonly [number, number];

export interface Progress {
  state: "running" | "done" | "failed";
  done: number;
  total: number;
  message: string | null;
}

export interface Project {
  id: string; // of this project alone
  name: string;
  source: string;
  model: string | null;
  version: string;
  class_names: string[];
  author: string;
  rankings: string[];
  by_default: string;
  progress: Progress;
  counts: { items: number; reviewed: number; skipped: number; open: number };
  failures: { name: string; message: string }[];
  limits: { points: number; nuclei: number };
}

export interface QueueEntry {
  id: string;
  name: string;
  image: string;
  window: [number, number, number, number] | null;
  stratum: string;
  rank: number;
  of: number;
  reason: string;
  status: Status;
  nuclei: number | null;
}

export interface ImageEntry {
  id: string;
  name: string;
  width: number;
  height: number;
  mpp: number | null;
  is_slide: boolean;
  nuclei: number | null;
}

export interface ImageFacts extends ImageEntry {
  tile_size: number;
  levels: number;
  outlines_from: number | null;
  nuclei_scale: number[];
  items: { id: string; window: [number, number, number, number] | null; status: Status | null }[];
}

export interface Counts {
  nuclei: number;
  proposed: number;
  accepted: number;
  rejected: number;
  added: number;
}

export interface ItemFacts {
  id: string;
  name: string;
  image: string;
  window: [number, number, number, number] | null;
  width: number;
  height: number;
  mpp: number | null;
  stratum: string;
  reason: string | null;
  rank: number | null;
  of: number | null;
  status: Status;
  version: number;
  class_names: string[];
  counts: Counts;
  can_undo: boolean;
  can_redo: boolean;
}

export interface Nucleus {
  id: number;
  points: number[];
  class_name: string | null;
  state: NucleusState;
  entropy: number | null;
  disagreement: number | null;
  distance: number | null;
  probability: number | null;
  by: string | null;
}

export interface ItemEvent {
  id: number;
  author: string;
  time: string;
  kind: string;
}

export interface Changes {
  version: number;
  status: Status;
  changed: Nucleus[];
  removed: number[];
  events: ItemEvent[];
  counts: Counts;
  can_undo: boolean;
  can_redo: boolean;
}

export interface EditRequest {
  kind: Kind;
  ids?: number[];
  points?: Point[];
  class_name?: string | null;
  status?: Status;
}
