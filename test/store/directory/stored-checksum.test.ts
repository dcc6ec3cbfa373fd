// Offered frames whose stored files have to be read: in slices, once, and never trusted after a
// change.

import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { countOpenFiles } from "../../../src/common/open-files.ts";
import { FramesError } from "../../../src/errors.ts";
import type { OfferedFrame, RunSlice, SourceStore } from "../../../src/frame.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf, storeFrame } from "../contract.ts";
import { offered, openVisible, pathOf, withStore } from "../fixture.ts";

const mebibyte = 1 << 20;
const bytes = bytesOf(3 * mebibyte);
const offer = offered("a", bytes);

/** Runs slices at once, and counts them. */
class Slices {
  count = 0;
  readonly run: RunSlice = async (slice) => {
    this.count++;
    return slice();
  };
}

/** A sender that wants stored bytes verified, and has stored one frame of 3 MiB. */
function withStored(act: (source: SourceStore, path: string) => Promise<void>): Promise<void> {
  const directory = temporaryFolder();
  return withStore(directory, async (store) => {
    await storeFrame(openVisible(store), "a", bytes);
    await store.flush();
    await act(openVisible(store, { durable: true }), pathOf(directory, "a"));
  });
}

/** Reads the file of the offered frame, and returns the number of slices and the answer. */
async function readAndCompare(source: SourceStore, frame: OfferedFrame) {
  const slices = new Slices();
  let answers = source.compare([frame]);
  if (answers.length === 0) {
    await source.readStored!(frame, slices.run);
    answers = source.compare([frame]);
  }
  return [slices.count, answers];
}

describe("StoredChecksum", () => {
  test("an offered frame of 3 MiB is read in slices of 1 MiB, and not again while its file is the same", async () => {
    await withStored(async (source) => {
      // One slice opens the file.
      expect(await readAndCompare(source, offer)).toEqual([4, ["stored"]]);
      expect(await readAndCompare(source, offer)).toEqual([0, ["stored"]]);
      expect(await readAndCompare(source, offer)).toEqual([0, ["stored"]]);
    });
  });

  test("frames before one that has to be read are answered first", async () => {
    await withStored(async (source) => {
      const small = bytesOf(10);
      const next = offered("b", small);
      expect(source.compare([next, offer, next])).toEqual(["wanted"]);
    });
  });

  test("files of 1 MiB altogether are read for one comparison", async () => {
    const directory = temporaryFolder();
    await withStore(directory, async (store) => {
      const half = bytesOf(mebibyte / 2);
      const names = ["1", "2", "3"];
      for (const name of names) await storeFrame(openVisible(store), name, half);
      await store.flush();
      const source = openVisible(store, { durable: true });
      expect(source.compare(names.map((name) => offered(name, half)))).toEqual([
        "stored",
        "stored",
      ]);
    });
  });

  for (const [what, change] of [
    ["written to", (path: string) => writeFileSync(path, bytesOf(bytes.length, 2))],
    [
      "replaced",
      (path: string) => {
        writeFileSync(`${path}.new`, bytesOf(bytes.length, 2));
        renameSync(`${path}.new`, path);
      },
    ],
    [
      "written to and given its earlier time again",
      (path: string) => {
        const time = new Date(1_600_000_000_000);
        writeFileSync(path, bytesOf(bytes.length, 2));
        utimesSync(path, time, time);
      },
    ],
  ] as const) {
    test(`a file that is ${what} after it was read is not stored any more`, async () => {
      await withStored(async (source, path) => {
        utimesSync(path, new Date(1_600_000_000_000), new Date(1_600_000_000_000));
        expect(await readAndCompare(source, offer)).toEqual([4, ["stored"]]);
        change(path);
        expect(source.compare([offer])).toEqual(["wanted"]);
        expect(await readAndCompare(source, offer)).toEqual([4, ["conflict"]]);
      });
    });
  }

  test("a file that is written to while it is read is wanted", async () => {
    await withStored(async (source, path) => {
      expect(source.compare([offer])).toEqual([]);
      let count = 0;
      const run: RunSlice = async (slice) => {
        if (++count === 3) writeFileSync(path, readFileSync(path));
        return slice();
      };
      await source.readStored!(offer, run);
      expect(source.compare([offer])).toEqual(["wanted"]);
    });
  });

  test("a file that grows or disappears is not stored", async () => {
    await withStored(async (source, path) => {
      expect(await readAndCompare(source, offer)).toEqual([4, ["stored"]]);
      appendFileSync(path, "x");
      expect(source.compare([offer])).toEqual(["conflict"]);
      rmSync(path);
      expect(source.compare([offer])).toEqual(["removed"]);
    });
  });

  test("reading ends when the sender is gone, and closes the file", async () => {
    await withStored(async (source) => {
      let left = 2;
      const run: RunSlice = async (slice) => {
        if (left-- === 0) throw new Error("gone");
        return slice();
      };
      const before = countOpenFiles();
      let failure: unknown;
      await source.readStored!(offer, run).catch((error: unknown) => (failure = error));
      expect(failure).toBeInstanceOf(FramesError);
      expect(countOpenFiles()).toBe(before);
      // What was not read to its end proves nothing.
      expect(source.compare([offer])).toEqual(["wanted"]);
      expect(await readAndCompare(source, offer)).toEqual([4, ["stored"]]);
    });
  });
});
