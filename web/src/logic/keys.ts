// What keys do: one table, from which the help sheet is made as well.

export const COMMANDS = {
  select: { keys: ["v"], says: "Select: click, Shift-click for more, Shift-drag for a box", group: "Tools" },
  draw: { keys: ["d"], says: "Draw a nucleus: drag around it, or click point by point", group: "Tools" },
  propose: { keys: ["c"], says: "Click a nucleus that was missed: the model draws it", group: "Tools" },
  split: { keys: ["s"], says: "Split: draw a line across a nucleus", group: "Tools" },
  reshape: { keys: ["r"], says: "Reshape: pull the border, or draw a new piece across it", group: "Tools" },
  pan: { keys: ["Space"], says: "Hold to move the image with any tool", group: "Tools" },
  accept: { keys: ["a"], says: "Accept what is chosen", group: "Chosen nuclei" },
  reject: { keys: ["x"], says: "Reject: no nucleus, stays to be seen", group: "Chosen nuclei" },
  delete: { keys: ["Delete", "Backspace"], says: "Delete: drawn by mistake", group: "Chosen nuclei" },
  merge: { keys: ["m"], says: "Merge the chosen ones into one", group: "Chosen nuclei" },
  class0: { keys: ["0"], says: "Take the class away", group: "Chosen nuclei" },
  class1: { keys: ["1"], says: "Class 1", group: "Chosen nuclei" },
  class2: { keys: ["2"], says: "Class 2", group: "Chosen nuclei" },
  class3: { keys: ["3"], says: "Class 3", group: "Chosen nuclei" },
  class4: { keys: ["4"], says: "Class 4", group: "Chosen nuclei" },
  class5: { keys: ["5"], says: "Class 5", group: "Chosen nuclei" },
  class6: { keys: ["6"], says: "Class 6", group: "Chosen nuclei" },
  class7: { keys: ["7"], says: "Class 7", group: "Chosen nuclei" },
  class8: { keys: ["8"], says: "Class 8", group: "Chosen nuclei" },
  class9: { keys: ["9"], says: "Class 9", group: "Chosen nuclei" },
  all: { keys: ["Ctrl+a"], says: "Choose all", group: "Chosen nuclei" },
  nextNucleus: { keys: ["ArrowRight", "u"], says: "The next least sure nucleus", group: "Chosen nuclei" },
  previousNucleus: { keys: ["ArrowLeft", "Shift+u"], says: "The one before", group: "Chosen nuclei" },
  confirm: { keys: ["Enter"], says: "Take what is drawn", group: "While drawing" },
  cancel: { keys: ["Escape"], says: "Give up what is drawn; choose none", group: "While drawing" },
  undo: { keys: ["Ctrl+z"], says: "Undo, without limit", group: "Item" },
  redo: { keys: ["Ctrl+Shift+z", "Ctrl+y"], says: "Redo", group: "Item" },
  acceptAll: { keys: ["g"], says: "Accept all that remain", group: "Item" },
  reviewed: { keys: ["w"], says: "Reviewed, and on to the next item", group: "Item" },
  skip: { keys: ["k"], says: "Skip, and on to the next item", group: "Item" },
  nextItem: { keys: ["n"], says: "Next item of the queue", group: "Item" },
  previousItem: { keys: ["p"], says: "Previous item", group: "Item" },
  outlines: { keys: ["o"], says: "Outlines", group: "What is shown" },
  fill: { keys: ["i"], says: "Fill", group: "What is shown" },
  probability: { keys: ["b"], says: "Probability of nucleus", group: "What is shown" },
  entropy: { keys: ["e"], says: "Uncertainty of each pixel", group: "What is shown" },
  colors: { keys: ["y"], says: "Color by state, class, or uncertainty", group: "What is shown" },
  rejected: { keys: ["j"], says: "Rejected ones", group: "What is shown" },
  hide: { keys: ["h"], says: "Hold to see the tissue alone", group: "What is shown" },
  fit: { keys: ["f"], says: "Fit the item to the window", group: "View" },
  zoomIn: { keys: ["+", "="], says: "Zoom in (also: wheel, two fingers)", group: "View" },
  zoomOut: { keys: ["-"], says: "Zoom out", group: "View" },
  left: { keys: ["Shift+ArrowLeft"], says: "Move left", group: "View" },
  right: { keys: ["Shift+ArrowRight"], says: "Move right", group: "View" },
  up: { keys: ["Shift+ArrowUp"], says: "Move up", group: "View" },
  down: { keys: ["Shift+ArrowDown"], says: "Move down", group: "View" },
  help: { keys: ["?"], says: "This sheet", group: "View" },
} as const satisfies Record<string, { keys: readonly string[]; says: string; group: string }>;

export type Command = keyof typeof COMMANDS;

export interface KeyPress {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  shiftKey: boolean;
  altKey: boolean;
}

const BY_KEY = new Map<string, Command>(
  (Object.entries(COMMANDS) as [Command, { keys: readonly string[] }][]).flatMap(([command, { keys }]) =>
    keys.map((key): [string, Command] => [key, command]),
  ),
);

/** The name of a key press as the table has it: `Ctrl+Shift+z`, `?`, `ArrowLeft`; Cmd of a Mac is Ctrl. */
export function nameOf({ key, ctrlKey, metaKey, shiftKey }: KeyPress): string {
  const plain = key === " " ? "Space" : key.length === 1 ? key.toLowerCase() : key;
  const letter = key.length > 1 || /[a-z]/.test(plain) || key === " ";
  return `${ctrlKey || metaKey ? "Ctrl+" : ""}${shiftKey && letter ? "Shift+" : ""}${plain}`;
}

/** What a key press asks for, or null. */
export const commandOf = (press: KeyPress): Command | null =>
  press.altKey ? null : (BY_KEY.get(nameOf(press)) ?? null);

const SHOWN: Record<string, string> = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc",
};

/** A key as people read it. */
export const shown = (name: string): string =>
  name.split(/\+(?=.)/).map((part) => SHOWN[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join("+");

/** The key of a command as people read it. */
export const keyOf = (command: Command): string => shown(COMMANDS[command].keys[0]);
