import { describe, expect, it } from "vitest";
import { COMMANDS, commandOf, keyOf, nameOf } from "../src/logic/keys";

const press = (key: string, held: Partial<Record<"ctrlKey" | "metaKey" | "shiftKey" | "altKey", boolean>> = {}) => ({
  key, ctrlKey: false, metaKey: false, shiftKey: false, altKey: false, ...held,
});

describe("keys", () => {
  it("ask for one thing each", () => {
    const keys = Object.values(COMMANDS).flatMap((command) => command.keys as readonly string[]);
    expect(new Set(keys).size).toBe(keys.length);
  });
  it("are named as the table has them", () => {
    expect(nameOf(press("Z", { ctrlKey: true, shiftKey: true }))).toBe("Ctrl+Shift+z");
    expect(nameOf(press("?", { shiftKey: true }))).toBe("?");
    expect(nameOf(press(" "))).toBe("Space");
  });
  it("give commands, with Cmd as Ctrl and Caps Lock as none", () => {
    expect(commandOf(press("A"))).toBe("accept");
    expect(commandOf(press("z", { metaKey: true }))).toBe("undo");
    expect(commandOf(press("y", { ctrlKey: true }))).toBe("redo");
    expect(commandOf(press("?", { shiftKey: true }))).toBe("help");
    expect(commandOf(press("+", { shiftKey: true }))).toBe("zoomIn");
    expect(commandOf(press("ArrowLeft", { shiftKey: true }))).toBe("left");
  });
  it("are left to the browser where Alt is held, or nothing is meant", () => {
    expect(commandOf(press("a", { altKey: true }))).toBeNull();
    expect(commandOf(press("r", { ctrlKey: true }))).toBeNull();
    expect(commandOf(press("Tab"))).toBeNull();
  });
  it("are shown as people read them", () => {
    expect(keyOf("undo")).toBe("Ctrl+Z");
    expect(keyOf("nextNucleus")).toBe("→");
    expect(keyOf("zoomIn")).toBe("+");
  });
});
