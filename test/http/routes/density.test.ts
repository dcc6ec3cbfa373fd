// How many frames a source has in each part of a time.

import { expect, test } from "bun:test";
import { Camera, startViewed } from "../../helper/viewing.ts";

const picture = new Uint8Array([1, 2, 3]);
const second = 1_000_000_000n;

test("the density of a source has its frames by the time of capture, and none in its pauses", async () => {
  await using viewed = await startViewed();
  const camera = new Camera(viewed.server, "run7", "x");
  // Ten frames in the first second, none in the second, three in the third.
  const times = Array.from({ length: 10 }, (_, index) => (BigInt(index) * second) / 10n);
  times.push(2n * second, 2n * second + 1n, 3n * second - 1n);
  for (const [index, time] of times.entries()) camera.give(picture, `${index + 1}.jpg`, time);
  await camera.arrived();
  await camera.end();
  const density = (query: string) =>
    viewed.json(`/api/streams/run7/density?${query}&source=x&source=none`);
  expect(await density(`from=0&to=${3n * second}&parts=3`)).toEqual({
    from: "0",
    to: `${3n * second}`,
    sources: [
      { name: "x", counts: [10, 0, 3] },
      { name: "none", counts: [0, 0, 0] },
    ],
  });
  const fine = await density(`from=0&to=${3n * second}&parts=60`);
  expect(fine.sources[0].counts.slice(0, 6)).toEqual([1, 0, 1, 0, 1, 0]);
  expect(fine.sources[0].counts.slice(20, 60).filter(Boolean)).toEqual([2, 1]);
  const outside = await density(`from=${4n * second}&to=${5n * second}&parts=2`);
  expect(outside.sources[0].counts).toEqual([0, 0]);
});

test("a density is asked for with times in order and a bounded number of parts", async () => {
  await using viewed = await startViewed();
  const camera = new Camera(viewed.server, "run7", "x");
  await camera.store(picture, "1.jpg", 1n);
  await camera.end();
  for (const query of ["", "from=2&to=1&parts=5", "from=0&to=1&parts=501", "from=0&to=x&parts=1"]) {
    const answer = await viewed.get(`/api/streams/run7/density?${query}&source=x`);
    expect([query, answer.status]).toEqual([query, 400]);
  }
});
