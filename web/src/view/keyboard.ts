// Keys, wherever the focus is but in a field that takes text.
import * as actions from "../actions";
import * as drawing from "../drawing";
import { commandOf, type Command } from "../logic/keys";
import * as store from "../store";
import { holdToPan } from "./pointer";
import type { Viewer } from "./viewer";

const STEP = 0.2; // of the view, that it moves by

function flip(name: "outlines" | "fill" | "rejected"): void {
  const layer = store.layers[name];
  layer.value = !layer.value;
  store.remember(name, layer.value);
}

const flipMap = (kind: "probability" | "entropy"): void =>
  void (store.map.value = store.map.value === kind ? "none" : kind);

function nextColors(): void {
  const ways: store.ColorBy[] = store.item.value?.class_names.length ? ["state", "class", "uncertainty"] : ["state", "uncertainty"];
  store.colorBy.value = ways[(ways.indexOf(store.colorBy.value) + 1) % ways.length]!;
  store.remember("colorBy", store.colorBy.value);
  store.tell(`Colored by ${store.colorBy.value}`);
}

function chooseAll(): void {
  const shown = [...store.nuclei.value.values()].filter(({ state }) => state !== "rejected" || store.layers.rejected.value);
  actions.choose(shown.map(({ id }) => id));
}

export function attachKeys(viewer: Viewer): void {
  const classes = Object.fromEntries(
    Array.from({ length: 10 }, (_, number) => [`class${number}`, () => actions.classify(number)]),
  ) as Record<`class${number}`, () => void>;
  const run: Record<Command, () => void> = {
    ...(classes as Record<Extract<Command, `class${number}`>, () => void>),
    select: () => actions.setTool("select"),
    draw: () => actions.setTool("draw"),
    propose: () => actions.setTool("propose"),
    split: () => actions.setTool("split"),
    reshape: () => actions.setTool("reshape"),
    pan: () => holdToPan(true),
    accept: () => actions.decide("accept"),
    reject: () => actions.decide("reject"),
    delete: () => actions.decide("delete"),
    merge: actions.merge,
    all: chooseAll,
    nextNucleus: () => actions.goNucleus(1),
    previousNucleus: () => actions.goNucleus(-1),
    confirm: () => drawing.confirm(viewer.transform()?.scale ?? 1),
    cancel: actions.cancel,
    undo: () => actions.turn("undo"),
    redo: () => actions.turn("redo"),
    acceptAll: actions.acceptAll,
    reviewed: () => actions.mark(store.item.value?.status === "reviewed" ? "open" : "reviewed"),
    skip: () => actions.mark("skipped"),
    nextItem: () => actions.goItem(1),
    previousItem: () => actions.goItem(-1),
    outlines: () => flip("outlines"),
    fill: () => flip("fill"),
    probability: () => flipMap("probability"),
    entropy: () => flipMap("entropy"),
    colors: nextColors,
    rejected: () => flip("rejected"),
    hide: () => (store.hidden.value = true),
    fit: () => viewer.fit(),
    zoomIn: () => viewer.zoom(1.5),
    zoomOut: () => viewer.zoom(1 / 1.5),
    left: () => viewer.move(-STEP, 0),
    right: () => viewer.move(STEP, 0),
    up: () => viewer.move(0, -STEP),
    down: () => viewer.move(0, STEP),
    help: () => (store.helpOpen.value = !store.helpOpen.value),
  };
  addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    const types = target.matches("input:not([type=checkbox]):not([type=range]), textarea, select");
    const command = commandOf(event);
    if (!command || types || (store.helpOpen.value && command !== "help" && command !== "cancel")) return;
    // a focused button or box takes its own keys
    const presses = command === "confirm" || command === "pan";
    if (presses && target.matches("button, input, summary, a") && !store.draft.value) return;
    if (target.matches("input[type=range]") && /Arrow/.test(event.key)) return;
    event.preventDefault();
    if (event.repeat && (command === "hide" || command === "pan" || command === "acceptAll" || command === "reviewed")) return;
    run[command]();
  });
  addEventListener("keyup", (event) => {
    if (event.key === " ") holdToPan(false);
    if (event.key.toLowerCase() === "h") store.hidden.value = false;
  });
  addEventListener("blur", () => {
    holdToPan(false);
    store.hidden.value = false;
  });
}
