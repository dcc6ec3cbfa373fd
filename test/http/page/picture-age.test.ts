// What the page says of the picture of a live source.

import { expect, test } from "bun:test";
import type { LiveJson } from "../../../src/http/page/api.ts";
import { PictureAge } from "../../../src/http/page/picture-age.ts";

const now = 1_795_627_753_000;
const second = 1_000_000_000n;
const received = BigInt(now) * 1_000_000n;

function latest(values: Partial<LiveJson>): LiveJson {
  return {
    ...{ rate: 10, bandwidth: 1, delay: 1, number: 5, gaps: 0, ended: false },
    ...{ captured: "0", name: "5.png", type: "image/png" },
    received: `${received}`,
    ...values,
  };
}

test("a picture is called live only while it is the newest of a source that goes on", () => {
  const age = new PictureAge();
  expect(age.state).toEqual({ kind: "still", text: "not live" });
  age.update(latest({}), now);
  expect(age.state).toEqual({ kind: "held", text: "no picture yet" });
  age.shownReceived = received - second;
  expect(age.state).toEqual({ kind: "live", text: "live" });
  age.shownReceived = received - 5n * second;
  expect(age.state).toEqual({ kind: "held", text: "5.00 s behind" });
  age.shownReceived = received;
  age.update(latest({ rate: 0 }), now + 12_000);
  expect(age.state).toEqual({ kind: "still", text: "no frame for 12.0 s" });
  // A rate of the past, of a source that the server does not list any more.
  age.update(latest({}), now + 12_000);
  expect(age.state).toEqual({ kind: "still", text: "no frame for 12.0 s" });
  age.update(latest({ rate: 0, ended: true }), now + 12_000);
  expect(age.state).toEqual({ kind: "still", text: "ended" });
});

test("a picture that stands still says why, whatever its source does", () => {
  const age = new PictureAge();
  age.update(latest({}), now);
  age.shownReceived = received;
  age.standstill = "paused";
  expect(age.state).toEqual({ kind: "held", text: "paused" });
  age.standstill = "no connection";
  expect(age.state).toEqual({ kind: "held", text: "no connection" });
  age.standstill = undefined;
  expect(age.state.kind).toBe("live");
});
