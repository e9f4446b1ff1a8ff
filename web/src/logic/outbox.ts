// Edits on their way to the server, one after another, and those that could not be saved: nothing drawn is lost.
//
// What waits is kept in the browser's storage as well, so that it outlives a reload. Edits of an item are sent on the
// version that they were made on; one that follows an edit of the same author goes on the version which that gave.
import { ApiError } from "./api";
import { boundsOf, centerOf, contains, toPoints } from "./geometry";
import type { Changes, EditRequest } from "./types";

export type What = EditRequest | Turn;

interface Turn {
  kind: "undo" | "redo";
}

const isTurn = (what: What): what is Turn => what.kind === "undo" || what.kind === "redo";

export interface Entry {
  item: string;
  itemName: string;
  parent: number;
  author: string;
  what: What;
  unsure: boolean; // sent, and no answer came: it may be saved
}

export interface Failure extends Entry {
  message: string;
  conflict: boolean;
}

export interface Transport {
  send(entry: Entry): Promise<Changes>;
  changes(item: string, after: number, author: string): Promise<Changes>;
}

export interface Keeper {
  write(text: string | null): void;
}

export interface Report {
  state: "saved" | "saving" | "waiting";
  pending: readonly Entry[];
  failed: readonly Failure[];
  message: string | null; // why it waits
  unauthorized: boolean;
}

const WAITS_MS = [1000, 2000, 4000, 8000];

/** Whether the changes that came since an edit was sent hold that edit. */
export function hasTakenEffect({ what, author }: Entry, changes: Changes): boolean {
  if (!changes.events.some((event) => event.author === author && event.kind === what.kind)) return false;
  if (isTurn(what)) return true;
  if (what.kind === "mark") return changes.status === what.status;
  const ids = what.ids ?? [];
  const changed = new Map(changes.changed.map((nucleus) => [nucleus.id, nucleus]));
  switch (what.kind) {
    case "add": {
      const center = centerOf(boundsOf(what.points ?? []));
      return changes.changed.some(({ by, points }) => by === author && contains(toPoints(points), center));
    }
    case "accept":
    case "reject":
      return ids.every((id) => changed.get(id)?.state === `${what.kind}ed`);
    case "classify":
      return ids.every((id) => changed.has(id) && changed.get(id)!.class_name === (what.class_name ?? null));
    case "reshape":
      return ids.every((id) => changed.get(id)?.by === author);
    default:
      return ids.every((id) => changes.removed.includes(id));
  }
}

export class Outbox {
  private pending: Entry[] = [];
  private failed: Failure[] = [];
  private running = false;
  private tries = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private why: string | null = null;
  private unauthorized = false;

  constructor(
    private readonly transport: Transport,
    private readonly keeper: Keeper,
    private readonly onReport: (report: Report) => void,
    private readonly onSaved: (entry: Entry, changes: Changes) => void,
    private readonly onFailed: (failure: Failure) => void,
  ) {}

  /** Takes over what an earlier page left, as text of `keeper`. */
  adopt(text: string | null): void {
    if (!text) return;
    const left = JSON.parse(text) as { pending: Entry[]; failed: Failure[] };
    this.pending.push(...left.pending);
    this.failed.push(...left.failed);
    this.keep();
    void this.run();
  }

  push(entry: Omit<Entry, "unsure">): void {
    this.pending.push({ ...entry, unsure: false });
    this.keep();
    void this.run();
  }

  /** Sends again at once what waits. */
  retry(): void {
    clearTimeout(this.timer);
    this.tries = 0;
    void this.run();
  }

  /** Takes the last edit that was not sent yet back, and says whether there was one. An undo that waits is none. */
  takeBack(item: string): boolean {
    const index = this.pending.findLastIndex((entry) => entry.item === item);
    const last = this.pending[index];
    if (!last || last.what.kind === "undo" || last.unsure || (index === 0 && this.running)) return false;
    this.pending.splice(index, 1);
    this.keep();
    return true;
  }

  discard(failure: Failure): void {
    this.failed = this.failed.filter((each) => each !== failure);
    this.keep();
  }

  /** Sends a refused edit once more, on the item as it is now. */
  again(failure: Failure, parent: number): void {
    this.failed = this.failed.filter((each) => each !== failure);
    const { item, itemName, author, what } = failure;
    this.push({ item, itemName, author, what, parent });
  }

  private keep(): void {
    const left = this.pending.length + this.failed.length;
    this.keeper.write(left ? JSON.stringify({ pending: this.pending, failed: this.failed }) : null);
    const state = this.why !== null ? "waiting" : this.pending.length ? "saving" : "saved";
    this.onReport({
      state,
      pending: [...this.pending],
      failed: [...this.failed],
      message: this.why,
      unauthorized: this.unauthorized,
    });
  }

  private async run(): Promise<void> {
    if (this.running) return;
    this.running = true;
    clearTimeout(this.timer);
    while (this.pending.length) {
      const entry = this.pending[0]!;
      try {
        const changes = await this.deliver(entry);
        this.pending.shift();
        this.follow(entry, changes);
        this.settled();
        this.onSaved(entry, changes);
      } catch (error) {
        if (!(error instanceof ApiError)) {
          this.running = false;
          throw error;
        }
        if ([0, 401, 421, 429].includes(error.status) || error.status >= 500) {
          this.wait(error);
          break;
        }
        this.pending.shift();
        const failure = { ...entry, message: error.message, conflict: error.status === 409 };
        if (!isTurn(entry.what) || failure.conflict) this.failed.push(failure); // of nothing to undo nothing is lost
        this.settled();
        this.onFailed(failure);
      }
    }
    this.running = false;
  }

  private async deliver(entry: Entry): Promise<Changes> {
    if (entry.unsure) {
      const changes = await this.transport.changes(entry.item, entry.parent, entry.author);
      if (hasTakenEffect(entry, changes)) return changes;
    }
    entry.unsure = true;
    this.keep();
    try {
      return await this.transport.send(entry);
    } catch (error) {
      // what was asked above and not answered leaves it as unsure as it was
      entry.unsure = error instanceof ApiError && (error.status === 0 || error.status === 500);
      throw error;
    }
  }

  /** Moves what follows on to the version that an edit gave, where nobody else changed the item in between. */
  private follow({ item, author, parent }: Entry, changes: Changes): void {
    if (!changes.events.every((event) => event.author === author)) return;
    for (const entry of this.pending) {
      if (entry.item === item && entry.author === author && entry.parent >= parent) {
        entry.parent = Math.max(entry.parent, changes.version);
      }
    }
  }

  private settled(): void {
    this.tries = 0;
    this.why = null;
    this.unauthorized = false;
    this.keep();
  }

  private wait(error: ApiError): void {
    this.why = error.message;
    this.unauthorized = error.status === 401;
    this.keep();
    const wait = error.retryAfter ? error.retryAfter * 1000 : WAITS_MS[Math.min(this.tries, WAITS_MS.length - 1)]!;
    this.tries += 1;
    this.timer = setTimeout(() => void this.run(), wait);
  }
}
