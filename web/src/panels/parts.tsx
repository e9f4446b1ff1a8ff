// Small parts of the panels: icons, buttons with their key, sliders.
import type { Signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { COMMANDS, keyOf, type Command } from "../logic/keys";
import { remember } from "../store";

const PATHS = {
  select: "M5 3l13 8-6 1.5L9.5 19z",
  draw: "M4 16c0-7 5-11 10-11 4 0 6 3 6 7s-3 7-8 7c-3 0-4-2-3-4",
  propose: "M12 3v4M12 17v4M3 12h4M17 12h4M12 9.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
  split: "M12 5c5 0 8 3 8 7s-3 7-8 7-8-3-8-7 3-7 8-7zM13 2l-2 20",
  reshape: "M4 13c0-5 4-8 8-8 3 0 4 2 6 3s3 3 2 5c-2 4-5 6-9 6-4 0-7-2-7-6zM18 4l-3 6",
  accept: "M4 12.5l5 5L20 6.5",
  reject: "M6 6l12 12M18 6L6 18",
  delete: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  merge: "M9 6a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15 6a6 6 0 1 1 0 12 6 6 0 0 1 0-12z",
  undo: "M8 5L4 9l4 4M4 9h9a6 6 0 0 1 0 12h-3",
  redo: "M16 5l4 4-4 4M20 9h-9a6 6 0 0 0 0 12h3",
  skip: "M5 6l7 6-7 6zM14 6l6 6-6 6z",
  reviewed: "M4 12.5l4 4 8-9M12 16l1 .5 8-9",
  all: "M3 8l3 3 5-6M3 17l3 3 5-6M14 8h7M14 17h7",
  menu: "M4 6h16M4 12h16M4 18h16",
  panel: "M4 5h16v14H4zM14 5v14",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  close: "M6 6l12 12M18 6L6 18",
  hide: "M3 12c3-5 6-7 9-7s6 2 9 7c-3 5-6 7-9 7s-6-2-9-7zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
} as const;

export type IconName = keyof typeof PATHS;

export const Icon = ({ name }: { name: IconName }): JSX.Element => (
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
    <path d={PATHS[name]} />
  </svg>
);

interface ActionProps {
  command: Command;
  icon?: IconName;
  label: string;
  onClick: () => void;
  pressed?: boolean;
  disabled?: boolean;
  kind?: string;
  short?: boolean;
}

/** A button of a command: its name, its key, and what it does when one points at it. */
export const Action = ({ command, icon, label, onClick, pressed, disabled, kind, short }: ActionProps): JSX.Element => (
  <button
    type="button"
    class={`action ${kind ?? ""} ${short ? "short" : ""}`}
    title={`${COMMANDS[command].says} (${keyOf(command)})`}
    aria-keyshortcuts={keyOf(command)}
    aria-pressed={pressed}
    aria-label={label}
    disabled={disabled}
    onClick={onClick}
  >
    {icon && <Icon name={icon} />}
    <span class="label">{label}</span>
    <kbd aria-hidden="true">{keyOf(command)}</kbd>
  </button>
);

export const Toggle = ({ name, label, state, children, hotkey }: {
  name: string; label: string; state: Signal<boolean>; children?: ComponentChildren; hotkey?: Command;
}): JSX.Element => (
  <div class="layer">
    <label class="check">
      <input
        type="checkbox"
        checked={state.value}
        onChange={(event) => {
          state.value = event.currentTarget.checked;
          remember(name, state.value);
        }}
      />
      <span>{label}</span>
      {hotkey && <kbd aria-hidden="true">{keyOf(hotkey)}</kbd>}
    </label>
    {children}
  </div>
);

export const Slider = ({ name, label, state }: { name: string; label: string; state: Signal<number> }): JSX.Element => (
  <input
    type="range"
    min="0.1"
    max="1"
    step="0.05"
    aria-label={label}
    value={state.value}
    onInput={(event) => {
      state.value = Number(event.currentTarget.value);
      remember(name, state.value);
    }}
  />
);

export const number = (value: number): string => value.toLocaleString("en-US");
export const plural = (count: number, one: string, many = `${one}s`): string => `${number(count)} ${count === 1 ? one : many}`;
