// The page: header, queue, image with its tools, facts.
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import * as actions from "../actions";
import * as drawing from "../drawing";
import { start } from "../start";
import * as store from "../store";
import { Overlay } from "../view/overlay";
import { attachPointer } from "../view/pointer";
import { Viewer, zoomed } from "../view/viewer";
import { attachKeys } from "../view/keyboard";
import { Banners } from "./Banners";
import { FactsPanel } from "./Facts";
import { Help } from "./Help";
import { Action, Icon, number, plural } from "./parts";
import { QueuePanel } from "./Queue";

function Saved(): JSX.Element {
  const { state, pending, failed, message } = store.report.value;
  const text =
    state === "waiting" ? `Not saved: ${message}`
    : failed.length ? `${plural(failed.length, "edit")} not saved`
    : state === "saving" ? `Saving ${number(pending.length)}`
    : "Saved";
  const kind = state === "waiting" || failed.length ? "not" : state;
  return <span class={`saved ${kind}`} id="saved" title={text}><i aria-hidden="true" />{text}</span>;
}

function Header(): JSX.Element {
  const tally = store.tally.value;
  const open = store.drawer.value;
  const flip = (side: "left" | "right"): void => void (store.drawer.value = open === side ? null : side);
  return (
    <header class="top">
      <button type="button" class="drawer-button left" aria-label="Queue" aria-expanded={open === "left"} onClick={() => flip("left")}><Icon name="menu" /></button>
      <h1 title={store.project.value?.source}>{store.project.value?.name ?? "hemalum review"}</h1>
      <span class="tally">{number(tally.reviewed)} of {number(tally.all)} reviewed</span>
      <Saved />
      <span class="space" />
      <label class="author">
        <span>Reviewer</span>
        <input
          type="text"
          value={store.author.value}
          maxLength={100}
          onChange={(event) => {
            const name = event.currentTarget.value.trim();
            if (name) {
              store.author.value = name;
              store.remember("author", name);
            } else event.currentTarget.value = store.author.value;
          }}
        />
      </label>
      <button type="button" class="help-button" aria-label="Keys and help" title="Keys and help (?)" onClick={() => (store.helpOpen.value = true)}>?</button>
      <button type="button" class="drawer-button right" aria-label="Facts and layers" aria-expanded={open === "right"} onClick={() => flip("right")}><Icon name="panel" /></button>
    </header>
  );
}

function Tools(): JSX.Element {
  const tool = store.tool.value;
  const each = (name: store.Tool, label: string): JSX.Element => (
    <Action command={name} icon={name} label={label} pressed={tool === name} onClick={() => actions.setTool(name)} />
  );
  return (
    <div class="tools" role="toolbar" aria-label="Tools">
      {each("select", "Select")}
      {each("draw", "Draw")}
      {each("propose", "Click to add")}
      {each("split", "Split")}
      {each("reshape", "Reshape")}
    </div>
  );
}

function Actions({ viewer }: { viewer: () => Viewer | null }): JSX.Element {
  const draft = store.draft.value;
  const some = store.chosen.value.size > 0;
  const item = store.item.value;
  if (draft && draft.kind !== "box") {
    return (
      <div class="actions" role="toolbar" aria-label="What is drawn">
        <Action command="confirm" icon="accept" label={draft.kind === "propose" ? "Take the model's outline" : "Done"} kind="primary"
          onClick={() => drawing.confirm(viewer()?.transform()?.scale ?? 1)} />
        <Action command="cancel" icon="close" label="Give up" onClick={actions.cancel} />
      </div>
    );
  }
  return (
    <div class="actions" role="toolbar" aria-label="Actions">
      <Action command="accept" icon="accept" label="Accept" disabled={!some} onClick={() => actions.decide("accept")} />
      <Action command="reject" icon="reject" label="Reject" disabled={!some} onClick={() => actions.decide("reject")} />
      <Action command="delete" icon="delete" label="Delete" disabled={!some} onClick={() => actions.decide("delete")} short />
      <Action command="merge" icon="merge" label="Merge" disabled={store.chosen.value.size < 2} onClick={actions.merge} short />
      <span class="rule" />
      <Action command="undo" icon="undo" label="Undo" disabled={!store.canUndo.value} onClick={() => actions.turn("undo")} short />
      <Action command="redo" icon="redo" label="Redo" disabled={!store.canRedo.value} onClick={() => actions.turn("redo")} short />
      <span class="space" />
      <Action command="acceptAll" icon="all" label="Accept the rest" disabled={!store.counts.value?.proposed} onClick={actions.acceptAll} />
      <Action command="skip" icon="skip" label="Skip" disabled={!item} onClick={() => actions.mark("skipped")} short />
      {item?.status === "reviewed" ? (
        <Action command="reviewed" icon="undo" label="Open again" onClick={() => actions.mark("open")} />
      ) : (
        <Action command="reviewed" icon="reviewed" label="Reviewed" kind="primary" disabled={!item} onClick={() => actions.mark("reviewed")} />
      )}
    </div>
  );
}

function Zoom({ viewer }: { viewer: () => Viewer | null }): JSX.Element {
  const mpp = store.image.value?.mpp;
  const power = mpp ? (10 / mpp) * zoomed.value : null; // an objective of 10x gives about 1 µm per px
  return (
    <div class="zoom" role="group" aria-label="Zoom">
      <button type="button" aria-label="Zoom in" title="Zoom in (+)" onClick={() => viewer()?.zoom(1.5)}><Icon name="plus" /></button>
      <button type="button" aria-label="Zoom out" title="Zoom out (-)" onClick={() => viewer()?.zoom(1 / 1.5)}><Icon name="minus" /></button>
      <button type="button" aria-label="Fit the item" title="Fit the item (F)" onClick={() => viewer()?.fit()}><Icon name="fit" /></button>
      <button type="button" aria-label="Hide all overlays" aria-pressed={store.hidden.value} title="Hide all overlays (hold H)"
        onClick={() => (store.hidden.value = !store.hidden.value)}><Icon name="hide" /></button>
      {power !== null && <span class="power" title="Magnification as of an objective">{power >= 10 ? power.toFixed(0) : power.toFixed(1)}×</span>}
    </div>
  );
}

function Scale(): JSX.Element | null {
  const mpp = store.image.value?.mpp;
  if (!mpp) return null;
  const most = (120 * mpp) / zoomed.value; // µm that 120 screen px show
  const length = [5000, 2000, 1000, 500, 200, 100, 50, 20, 10, 5, 2, 1].find((one) => one <= most) ?? 1;
  return (
    <div class="scale" aria-hidden="true">
      <i style={{ width: `${(length / mpp) * zoomed.value}px` }} />
      {length >= 1000 ? `${length / 1000} mm` : `${length} µm`}
    </div>
  );
}

function Stage(): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const made = useRef<Viewer | null>(null);
  const viewer = (): Viewer | null => made.current;
  useEffect(() => {
    const one = new Viewer(host.current!);
    made.current = one;
    one.seadragon.canvas.append(canvas.current!);
    one.seadragon.canvas.setAttribute("aria-label", "Image with nuclei. Right arrow: the next nucleus that the model is unsure of.");
    one.seadragon.canvas.setAttribute("role", "application");
    new Overlay(canvas.current!, one);
    attachPointer(one);
    attachKeys(one);
    actions.onShow((nucleus) => one.showBox(nucleus.box));
    Object.assign(window, { hemalumReview: { store, viewer: one } }); // for the console, and for tests
    void start();
  }, []);
  const drawing = store.tool.value !== "select";
  return (
    <main class="stage">
      <Tools />
      <div class={`viewer ${drawing ? "drawing" : ""}`}>
        <div ref={host} class="image" />
        <canvas ref={canvas} class="overlay" aria-hidden="true" />
        <Zoom viewer={viewer} />
        <Scale />
        <Banners />
        {(store.opening.value || store.thinking.value) && (
          <div class="opening" role="status"><i aria-hidden="true" />{store.opening.value ?? store.thinking.value}</div>
        )}
      </div>
      <Actions viewer={viewer} />
    </main>
  );
}

export function App(): JSX.Element {
  const drawer = store.drawer.value;
  return (
    <>
      <Header />
      <div class={`body ${drawer ? `drawer-${drawer}` : ""}`}>
        <nav class="side left" aria-label="Queue"><QueuePanel /></nav>
        <Stage />
        <aside class="side right" aria-label="Facts and layers"><FactsPanel /></aside>
        {drawer && <button type="button" class="curtain" aria-label="Close the panel" onClick={() => (store.drawer.value = null)} />}
      </div>
      <div class="unseen" aria-live="polite" role="status" id="spoken">{store.spoken.value}</div>
      <Help />
    </>
  );
}
