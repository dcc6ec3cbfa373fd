import { describe, expect, test } from "bun:test";
import { PendingConnections } from "../../src/net/pending-connections.ts";

describe("PendingConnections", () => {
  test("pending connections of one address take at most half of all, and the oldest is dropped", () => {
    const doorway = new PendingConnections<number>(8);
    doorway.add(100, "other", 1);
    const gone = [1, 2, 3, 4, 5, 6].map((number) => doorway.add(number, "silent", 2));
    expect(gone).toEqual([undefined, undefined, undefined, undefined, 1, 2]);
  });

  test("the oldest pending connection is dropped when there are too many connections", () => {
    const doorway = new PendingConnections<number>(4);
    expect(doorway.add(1, "a", 1)).toBeUndefined();
    expect(doorway.add(2, "b", 4)).toBeUndefined();
    expect(doorway.add(3, "c", 5)).toBe(1);
    expect(doorway.add(4, "d", 5)).toBe(2);
  });

  test("a connection that is no longer pending is not dropped", () => {
    const doorway = new PendingConnections<number>(4);
    doorway.add(1, "a", 1);
    doorway.add(2, "a", 2);
    doorway.remove(1);
    doorway.remove(1);
    expect(doorway.add(3, "a", 3)).toBeUndefined();
    expect(doorway.add(4, "a", 4)).toBe(2);
    for (const number of [3, 4]) doorway.remove(number);
    expect(doorway.add(5, "a", 99)).toBeUndefined();
  });

  test("one address may always have one pending connection, however low the limit is", () => {
    const doorway = new PendingConnections<number>(1);
    expect(doorway.add(1, "a", 1)).toBeUndefined();
    expect(doorway.add(2, "a", 1)).toBe(1);
  });

  test("a new connection among silent ones is not dropped for the next 49 connections", () => {
    const doorway = new PendingConnections<string>(100);
    for (let number = 0; number < 1000; number++) doorway.add(`${number}`, "silent", 51);
    doorway.add("honest", "silent", 51);
    const gone = Array.from({ length: 49 }, (_, at) => doorway.add(`x${at}`, "silent", 51));
    expect(gone).not.toContain("honest");
    expect(gone).not.toContain(undefined);
  });
});
