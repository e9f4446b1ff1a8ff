// Colors that people with any color vision can tell apart (Okabe and Ito, 2008, made lighter for dark lines around
// them). None stands alone: states differ in width and marks as well, classes in their numbers.

export const STATE_COLORS = { proposed: "#f0e442", accepted: "#36e0b0", rejected: "#ff8a5c" } as const;

const CLASS_COLORS = [
  "#56b4e9", "#f0e442", "#ff8a5c", "#36e0b0", "#f2a5d0", "#ffb000", "#9fb4ff", "#d8f793", "#ffffff",
] as const;
export const NO_CLASS = "#c9ced6";

/** The color of class number 1, 2, ...; 0 is none. They begin anew after nine. */
export const classColor = (number: number): string =>
  number > 0 ? CLASS_COLORS[(number - 1) % CLASS_COLORS.length]! : NO_CLASS;

// from dark blue (sure) to yellow (even odds): equally light steps, no red against green
const RAMP: readonly (readonly [number, number, number])[] = [
  [36, 52, 112], [64, 90, 160], [70, 140, 190], [90, 190, 180], [170, 220, 120], [253, 231, 60],
];
export const STEPS = 8;
export const UNKNOWN = NO_CLASS;

/** RGB, 0 to 255, of a share of 0 to 1 of all uncertainty. */
export function rampColor(share: number): [number, number, number] {
  const at = Math.max(0, Math.min(1, share)) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  const [a, b] = [RAMP[low]!, RAMP[low + 1]!];
  return [0, 1, 2].map((i) => Math.round(a[i]! + (b[i]! - a[i]!) * (at - low))) as [number, number, number];
}

/** One of `STEPS` colors for an entropy in nats, log 2 = 0.693 at most. */
export function entropyColor(entropy: number | null): string {
  if (entropy === null) return UNKNOWN;
  const step = Math.min(STEPS - 1, Math.floor((entropy / Math.LN2) * STEPS));
  return `rgb(${rampColor(step / (STEPS - 1)).join(" ")})`;
}
