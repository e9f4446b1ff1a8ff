// The right panel: what is chosen, what is shown, and what was done to the item by whom.
import type { JSX } from "preact";
import * as actions from "../actions";
import { classColor, entropyColor, STATE_COLORS } from "../logic/colors";
import { keyOf, type Command } from "../logic/keys";
import { signedArea } from "../logic/geometry";
import * as store from "../store";
import { number, plural, Slider, Toggle } from "./parts";
import { Name } from "./Queue";

const STATES = { proposed: "not decided on", accepted: "accepted", rejected: "rejected" } as const;
const DONE: Record<string, string> = {
  add: "added a nucleus", delete: "deleted", split: "split a nucleus", merge: "merged nuclei", reshape: "changed an outline",
  classify: "changed the class", accept: "accepted", reject: "rejected", mark: "marked the item", undo: "took a change back",
  redo: "made a change again",
};
const LAST = 12;

const percent = (share: number | null): string => (share === null ? "not known" : `${Math.round(share * 100)}%`);

const shareOfCoinToss = (entropy: number | null): number | null => (entropy === null ? null : entropy / Math.LN2);

function NucleusFacts({ nucleus }: { nucleus: store.Outlined }): JSX.Element {
  const mpp = store.item.value?.mpp;
  const area = Math.abs(signedArea(nucleus.ring));
  return (
    <dl class="facts-list">
      <dt>State</dt>
      <dd class={nucleus.state}>{STATES[nucleus.state]}{nucleus.by ? ` by ${nucleus.by}` : ""}</dd>
      {(store.item.value?.class_names.length ?? 0) > 0 && <><dt>Class</dt><dd>{nucleus.class_name ?? "none"}</dd></>}
      <dt>Area</dt>
      <dd>{mpp ? `${(area * mpp * mpp).toFixed(1)} µm²` : `${area.toFixed(0)} px`}</dd>
      <dt title="Mean probability of nucleus within the outline">Probability</dt>
      <dd>{percent(nucleus.probability)}</dd>
      <dt title="Mean entropy of its pixels: 0% is sure, 100% a coin toss">Uncertainty</dt>
      <dd>
        {nucleus.entropy !== null && <span class="swatch" style={{ background: entropyColor(nucleus.entropy) }} />}
        {percent(shareOfCoinToss(nucleus.entropy))}
      </dd>
      {nucleus.disagreement !== null && (
        <>
          <dt title="1 minus its overlap (IoU) with the same nucleus in mirror images">Disagreement</dt>
          <dd>{percent(nucleus.disagreement)}</dd>
        </>
      )}
    </dl>
  );
}

function Chosen(): JSX.Element {
  const chosen = [...store.chosen.value].map((id) => store.nuclei.value.get(id)).filter((one) => one !== undefined);
  const [first] = chosen;
  return (
    <section aria-labelledby="chosen">
      <h2 id="chosen">{!first ? "Nothing chosen" : chosen.length > 1 ? plural(chosen.length, "nucleus", "nuclei") : `Nucleus ${first.id}`}</h2>
      {!first && <p class="hint">Click a nucleus, or press <kbd>→</kbd> for the one that the model is least sure of.</p>}
      {first && chosen.length === 1 && <NucleusFacts nucleus={first} />}
      {chosen.length > 1 && (
        <p class="hint">{(["proposed", "accepted", "rejected"] as const)
          .map((state) => [state, chosen.filter((one) => one.state === state).length] as const)
          .filter(([, count]) => count).map(([state, count]) => `${number(count)} ${STATES[state]}`).join(", ")}</p>
      )}
    </section>
  );
}

function Classes(): JSX.Element | null {
  const names = store.item.value?.class_names ?? [];
  if (!names.length) return null;
  const chosen = [...store.chosen.value].map((id) => store.nuclei.value.get(id)?.class_name ?? null);
  const current = new Set(chosen);
  const counted = new Map<string | null, number>();
  for (const { class_name, state } of store.nuclei.value.values()) {
    if (state !== "rejected") counted.set(class_name, (counted.get(class_name) ?? 0) + 1);
  }
  return (
    <section aria-labelledby="classes">
      <h2 id="classes">Class</h2>
      <div class="classes" role="group" aria-label="Class of the chosen nuclei">
        {[...names, null].map((name, i) => (
          <button
            type="button"
            key={name ?? ""}
            disabled={!chosen.length}
            aria-pressed={chosen.length > 0 && current.size === 1 && current.has(name)}
            onClick={() => actions.classify(name === null ? 0 : i + 1)}
          >
            <span class="swatch" style={{ background: classColor(name === null ? 0 : i + 1) }} />
            <span class="label">{name ?? "none"}</span>
            <span class="count">{number(counted.get(name) ?? 0)}</span>
            {i < 9 && <kbd aria-hidden="true">{name === null ? 0 : i + 1}</kbd>}
          </button>
        ))}
      </div>
    </section>
  );
}

function MapChoice({ kind, label, command }: { kind: "probability" | "entropy"; label: string; command: Command }): JSX.Element {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={store.map.value === kind}
        onChange={(event) => (store.map.value = event.currentTarget.checked ? kind : "none")}
      />
      <span>{label}</span>
      <kbd aria-hidden="true">{keyOf(command)}</kbd>
    </label>
  );
}

function Key(): JSX.Element | null {
  const by = store.colorBy.value;
  if (by === "state") {
    return (
      <ul class="key" aria-label="Key to the outlines">
        <li><svg viewBox="0 0 28 12" aria-hidden="true"><line x1="1" x2="27" y1="6" y2="6" stroke={STATE_COLORS.proposed} stroke-width="1.6" /></svg>not decided on</li>
        <li><svg viewBox="0 0 28 12" aria-hidden="true"><line x1="1" x2="27" y1="6" y2="6" stroke={STATE_COLORS.accepted} stroke-width="3" /><circle cx="14" cy="6" r="4" fill={STATE_COLORS.accepted} /></svg>accepted</li>
        <li><svg viewBox="0 0 28 12" aria-hidden="true"><line x1="1" x2="27" y1="6" y2="6" stroke={STATE_COLORS.rejected} stroke-width="1.6" stroke-dasharray="5 4" /><path d="M11 3l6 6M17 3l-6 6" stroke={STATE_COLORS.rejected} stroke-width="1.6" /></svg>rejected</li>
      </ul>
    );
  }
  if (by === "uncertainty") {
    return (
      <div class="ramp" role="img" aria-label="From dark blue, sure, to yellow, a coin toss">
        <span>sure</span>
        {Array.from({ length: 8 }, (_, i) => <i key={i} style={{ background: entropyColor(((i + 0.5) / 8) * Math.LN2) }} />)}
        <span>coin toss</span>
      </div>
    );
  }
  return null;
}

function Layers(): JSX.Element {
  const { layers, opacity } = store;
  return (
    <section aria-labelledby="shown">
      <h2 id="shown">Shown</h2>
      <Toggle name="outlines" label="Outlines" state={layers.outlines} hotkey="outlines">
        <Slider name="outlineOpacity" label="Opacity of outlines" state={opacity.outlines} />
      </Toggle>
      <Toggle name="fill" label="Fill" state={layers.fill} hotkey="fill">
        <Slider name="fillOpacity" label="Opacity of the fill" state={opacity.fill} />
      </Toggle>
      <Toggle name="rejected" label="Rejected ones" state={layers.rejected} hotkey="rejected" />
      {store.image.value?.is_slide && <Toggle name="context" label="Nuclei of the whole slide" state={layers.context} />}
      <div class="layer">
        <MapChoice kind="probability" label="Probability" command="probability" />
        <Slider name="mapOpacity" label="Opacity of the map" state={opacity.map} />
      </div>
      <div class="layer"><MapChoice kind="entropy" label="Uncertainty" command="entropy" /></div>
      <label class="choice">
        <span>Color by</span>
        <select
          value={store.colorBy.value}
          onChange={(event) => {
            store.colorBy.value = event.currentTarget.value as store.ColorBy;
            store.remember("colorBy", store.colorBy.value);
          }}
        >
          <option value="state">State</option>
          {(store.item.value?.class_names.length ?? 0) > 0 && <option value="class">Class</option>}
          <option value="uncertainty">Uncertainty</option>
        </select>
      </label>
      <Key />
    </section>
  );
}

function Done(): JSX.Element {
  const events = store.events.value;
  return (
    <section aria-labelledby="done">
      <h2 id="done">Changes</h2>
      {!events.length && <p class="hint">Nobody has changed this item yet.</p>}
      <ol class="events">
        {events.slice(-LAST).reverse().map(({ id, author, time, kind }) => (
          <li key={id}>
            <span>{author} {DONE[kind] ?? kind}</span>
            <time dateTime={time}>{new Date(time).toLocaleTimeString("en-US", { hour: "2-digit", minute: "2-digit" })}</time>
          </li>
        ))}
      </ol>
      {events.length > LAST && <p class="hint">and {number(events.length - LAST)} before</p>}
    </section>
  );
}

export function FactsPanel(): JSX.Element {
  const item = store.item.value;
  const counts = store.counts.value;
  return (
    <div class="scroll">
      {item && (
        <section aria-labelledby="item">
          <h2 id="item"><Name name={item.name} window={item.window} /></h2>
          <p class="hint">
            {[item.name.startsWith(item.stratum) ? "" : item.stratum, item.window && `${number(item.window[2])} × ${number(item.window[3])} px`, item.mpp && `${item.mpp.toFixed(2)} µm/px`]
              .filter(Boolean).join(" · ")}
          </p>
          {item.reason && <p class="why">{item.reason}</p>}
          {counts && (
            <dl class="counts">
              <div><dt>nuclei</dt><dd>{number(counts.nuclei)}</dd></div>
              <div><dt>to decide</dt><dd>{number(counts.proposed)}</dd></div>
              <div><dt>accepted</dt><dd>{number(counts.accepted)}</dd></div>
              <div><dt>rejected</dt><dd>{number(counts.rejected)}</dd></div>
              <div><dt>added</dt><dd>{number(counts.added)}</dd></div>
            </dl>
          )}
        </section>
      )}
      <Chosen />
      <Classes />
      <Layers />
      <Done />
    </div>
  );
}
