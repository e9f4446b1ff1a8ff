import { expect, it } from "vitest";
import { readOutlineTile } from "../src/logic/outlineTile";

function tile(): ArrayBuffer {
  const bytes = new ArrayBuffer(8 + 8 + 4 + 12 + 4 * 5);
  new Uint32Array(bytes, 0, 4).set([2, 5, 7, 9]);
  new Uint8Array(bytes, 16, 2).set([1, 0]);
  new Uint32Array(bytes, 20, 3).set([0, 3, 5]);
  new Int16Array(bytes, 32, 10).set([-8, 0, 80, 0, 80, 80, 1, 2, 3, 4]);
  return bytes;
}

it("reads ids, classes and outlines", () => {
  const read = readOutlineTile(tile());
  expect([...read.ids]).toEqual([7, 9]);
  expect([...read.classes]).toEqual([1, 0]);
  expect([...read.offsets]).toEqual([0, 3, 5]);
  expect([...read.coords.subarray(0, 4)]).toEqual([-8, 0, 80, 0]);
});

it("refuses a tile that is cut short, or whose offsets lead out of it", () => {
  expect(() => readOutlineTile(tile().slice(0, 50))).toThrow("cut short");
  expect(() => readOutlineTile(new ArrayBuffer(4))).toThrow("cut short");
  const wrong = tile();
  new Uint32Array(wrong, 20, 3).set([0, 6, 5]);
  expect(() => readOutlineTile(wrong)).toThrow("damaged");
});
