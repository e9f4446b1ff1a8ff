import { describe, expect, it } from "vitest";
import {
  asOutline, boundsOf, clampTo, contains, crossesItself, crossing, lengthInside, lengthen, nearestOnRing, pullBorder,
  replacePiece, signedArea, simplify, snap, toPoints,
} from "../src/logic/geometry";
import type { Point } from "../src/logic/types";

const square: Point[] = [[0, 0], [10, 0], [10, 10], [0, 10]];
const area = (ring: readonly Point[] | null): number => Math.abs(signedArea(ring ?? []));

describe("rings", () => {
  it("reads a flat list, and leaves an odd number out", () => {
    expect(toPoints([1, 2, 3, 4, 5])).toEqual([[1, 2], [3, 4]]);
  });
  it("has bounds and an area that is positive clockwise on the screen", () => {
    expect(boundsOf(square)).toEqual([0, 0, 10, 10]);
    expect(signedArea(square)).toBe(100);
    expect(signedArea([...square].reverse())).toBe(-100);
  });
  it("holds what lies in it, also where it is hollow", () => {
    const hollow: Point[] = [[0, 0], [10, 0], [10, 10], [5, 2], [0, 10]];
    expect(contains(hollow, [5, 1])).toBe(true);
    expect(contains(hollow, [5, 8])).toBe(false);
    expect(contains(square, [11, 5])).toBe(false);
  });
  it("knows the nearest place on its border", () => {
    expect(nearestOnRing(square, [5, 12])).toEqual({ after: 2, point: [5, 10], distance: 2 });
    expect(nearestOnRing(square, [-3, 5])).toEqual({ after: 3, point: [0, 5], distance: 3 });
  });
  it("sees where segments cross, and not where they are parallel or end before", () => {
    expect(crossing([0, 0], [4, 4], [0, 4], [4, 0])).toEqual([2, 2]);
    expect(crossing([0, 0], [4, 0], [0, 1], [4, 1])).toBeNull();
    expect(crossing([0, 0], [1, 1], [0, 4], [4, 0])).toBeNull();
  });
  it("sees that a bow tie crosses itself", () => {
    expect(crossesItself([[0, 0], [10, 10], [10, 0], [0, 10]])).toBe(true);
    expect(crossesItself(square)).toBe(false);
  });
});

describe("drawn lines", () => {
  it("are simplified to what is farther off than the tolerance", () => {
    expect(simplify([[0, 0], [5, 0.2], [10, 0], [10, 10]], 0.5)).toEqual([[0, 0], [10, 0], [10, 10]]);
    expect(simplify([[0, 0], [5, 2], [10, 0]], 0.5)).toHaveLength(3);
  });
  it("lie on the grid of the journal, without repeats, and in the image", () => {
    expect(snap([[1.001, 2], [1.002, 2], [3, 3]])).toEqual([[1, 2], [3, 3]]);
    expect(clampTo([[-3, 5], [120, 90]], 100, 80)).toEqual([[0, 5], [100, 80]]);
  });
  it("are an outline where they enclose something", () => {
    expect(asOutline([...square, [0, 0]], 0.5, 100, 100)).toEqual(square);
    expect(asOutline([[0, 0], [5, 5]], 0.5, 100, 100)).toBeNull();
    expect(asOutline([[0, 0], [5, 5], [10, 10]], 0.5, 100, 100)).toBeNull();
  });
  it("become longer at both ends", () => {
    expect(lengthen([[0, 0], [10, 0]], 2)).toEqual([[-2, 0], [0, 0], [10, 0], [12, 0]]);
  });
  it("know how far they run in a ring", () => {
    expect(lengthInside(square, [[-5, 5], [15, 5]])).toBeCloseTo(10, 5);
    expect(lengthInside(square, [[-5, 15], [15, 15]])).toBe(0);
  });
});

describe("reshaping", () => {
  it("adds what a line goes around outside of the ring", () => {
    const ring = replacePiece(square, [[8, 2], [14, 2], [14, 8], [8, 8]], 0);
    expect(area(ring)).toBeCloseTo(100 + 4 * 6, 5);
    expect(crossesItself(ring!)).toBe(false);
  });
  it("cuts off the smaller part where a line runs through the ring", () => {
    const ring = replacePiece(square, [[7, -3], [7, 13]], 0);
    expect(area(ring)).toBeCloseTo(70, 5);
  });
  it("takes ends that lie near the border as on it", () => {
    const line: Point[] = [[10.5, 2], [14, 5], [10.5, 8]];
    expect(area(replacePiece(square, line, 1))).toBeCloseTo(100 + 0.5 * 6 + (3.5 * 6) / 2, 5);
    expect(replacePiece(square, line, 0)).toBeNull();
  });
  it("gives nothing for a line that does not meet the border twice", () => {
    expect(replacePiece(square, [[2, 2], [8, 8]], 0.5)).toBeNull();
    expect(replacePiece(square, [[20, 2], [28, 8]], 0.5)).toBeNull();
    expect(replacePiece(square, [[5, 5]], 2)).toBeNull();
  });
  it("pulls the border near a place, and leaves the far side", () => {
    const ring = pullBorder(square, [10, 5], [13, 5], 4);
    expect(ring).toContainEqual([13, 5]);
    expect(ring).toContainEqual([0, 0]);
    expect(area(ring)).toBeGreaterThan(area(square));
  });
});
