// Which key a session belongs to: what outlives retention, a repair, and journals of other versions.
//
// Covers: store/session-owner.ts

import { expect, test } from "bun:test";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import type { SourceInfo } from "../../../src/frame.ts";
import { FramesError } from "../../../src/errors.ts";
import { journalPath } from "../../../src/store/journal/schema.ts";
import { verify } from "../../../src/store/verify/verify-directory.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { bytesOf, session, thrownCode } from "../contract.ts";
import { alter, names, openVisible, otherSession, putAll, rows, withStore } from "../fixture.ts";

const camera = { key: "cam", keyId: "3".repeat(16) };
const other = { key: "other", keyId: "4".repeat(16) };
/** A key that was given the name of a deleted one. */
const namesake = { key: "cam", keyId: "5".repeat(16) };

/** A store with a frame that the camera has sent. */
async function storeOfCamera(sender: Partial<SourceInfo> = camera): Promise<string> {
  const directory = temporaryFolder();
  await withStore(directory, async (store) => {
    await putAll(store, openVisible(store, sender), [["1.png", bytesOf(300)]]);
  });
  return directory;
}

/** Returns which of these senders may continue the session. */
async function whoMayContinue(directory: string): Promise<string[]> {
  return await withStore(directory, (store) => {
    const senders = { camera, namesake, other, nobody: {} };
    const may = Object.entries(senders).filter(([, sender]) => {
      return thrownCode(() => store.checkSession({ session, ...sender })) === undefined;
    });
    return may.map(([who]) => who);
  });
}

/** Makes the journal one of an earlier version, which did not know whose the sessions are. */
function makeOlder(directory: string): void {
  alter(directory, "DROP TRIGGER begun_sessions");
  alter(directory, "DROP TABLE sessions");
}

test("a session belongs to its key after all of its frames were removed", async () => {
  const directory = await storeOfCamera();
  await withStore(
    directory,
    async (store) => {
      const source = openVisible(store, { session: otherSession });
      await putAll(store, source, [["2.png", bytesOf(300)]]);
      while (await store.retention!.step());
    },
    { keep: { bytes: 300 } },
  );
  expect(names(directory)).toEqual(["2.png"]);
  expect(await whoMayContinue(directory)).toEqual(["camera"]);
});

test("a session belongs to its key after the journal was rebuilt", async () => {
  const directory = await storeOfCamera();
  alter(directory, "UPDATE properties SET value = 'damaged' WHERE name = 'numbering'");
  expect(await verify(directory, { repair: true })).toMatchObject({ rebuilt: 1 });
  expect(await whoMayContinue(directory)).toEqual(["camera"]);
});

test("a session whose key cannot be read belongs to the name of the key that its frames have", async () => {
  const directory = await storeOfCamera();
  alter(directory, "UPDATE sessions SET key_id = 'no id'");
  expect(await verify(directory, { repair: true })).toMatchObject({ rebuilt: 1 });
  expect(await whoMayContinue(directory)).toEqual(["camera", "namesake"]);
});

test("sessions of an earlier version belong to the name of their key, and to its id from then on", async () => {
  const directory = await storeOfCamera();
  makeOlder(directory);
  expect(await whoMayContinue(directory)).toEqual(["camera", "namesake"]);
  await withStore(directory, async (store) => {
    await putAll(store, openVisible(store, camera), [["2.png", bytesOf(300)]]);
  });
  expect(await whoMayContinue(directory)).toEqual(["camera"]);
});

test("a session of an earlier version that another key had taken belongs to the key that began it", async () => {
  const directory = await storeOfCamera();
  makeOlder(directory);
  alter(
    directory,
    `INSERT INTO frames SELECT id + 1, stream, source, '2.png', session, seq + 1, bytes, crc32,
      captured, received, 'other', meta, format, NULL FROM frames`,
  );
  expect(await whoMayContinue(directory)).toEqual(["camera", "namesake"]);
});

test("a session that an earlier version begins in a journal of this one belongs to the name of its key", async () => {
  const directory = await storeOfCamera({ ...camera, session: otherSession });
  alter(
    directory,
    `INSERT INTO frames SELECT id + 1, stream, source, '2.png', '${session}', seq, bytes, crc32,
      captured, received, key, meta, format, NULL FROM frames`,
  );
  expect(await whoMayContinue(directory)).toEqual(["camera", "namesake"]);
});

test("frames that an earlier version stores or replaces leave the id of the key that began their session", async () => {
  const directory = await storeOfCamera();
  const columns = `stream, source, name, session, seq, bytes, crc32, captured, received, key`;
  alter(
    directory,
    `INSERT OR REPLACE INTO frames (id, ${columns}) SELECT 7, ${columns} FROM frames`,
  );
  expect(await whoMayContinue(directory)).toEqual(["camera"]);
});

test("a session of which the journal knows only gaps is begun, not owned", async () => {
  const directory = await storeOfCamera();
  makeOlder(directory);
  alter(directory, "DELETE FROM frames");
  expect(await whoMayContinue(directory)).toEqual(["camera", "namesake", "other", "nobody"]);
});

test("a sender that stores nothing does not begin a session", async () => {
  const directory = await storeOfCamera();
  await withStore(directory, async (store) => {
    openVisible(store, { ...other, session: otherSession });
    expect(thrownCode(() => openVisible(store, { ...camera, session: otherSession }))).toBe(
      "stolen-session",
    );
    await store.flush();
  });
  expect(rows(directory, "SELECT session FROM sessions")).toEqual([{ session }]);
});

test("sessions that are opened and never written to take bounded memory", async () => {
  const directory = await storeOfCamera();
  await withStore(directory, async (store) => {
    for (let number = 0; number < 2500; number++) {
      openVisible(store, { ...other, session: String(number).padStart(32, "a") });
    }
    await store.flush();
  });
  // More than a thousand of them were written, and are not kept in memory.
  expect(rows(directory, "SELECT 1 FROM sessions").length).toBe(2 * 1001 + 1);
});

test("no key continues the session of frames that verify --accept took as they are", async () => {
  const directory = await storeOfCamera();
  const journal = readFileSync(journalPath(directory));
  writeFileSync(journalPath(directory), journal.fill(0x5a, 0, 100));
  for (const suffix of ["-wal", "-shm"]) rmSync(journalPath(directory) + suffix, { force: true });
  await verify(directory, { repair: true });
  await verify(directory, { accept: true });
  const [row] = rows<{ session: string }>(directory, "SELECT session FROM frames");
  expect(row!.session).not.toBe("0".repeat(32));
  await withStore(directory, async (store) => {
    const sender = { ...other, session: row!.session, replacesOwn: true };
    expect(thrownCode(() => openVisible(store, sender))).toBe("stolen-session");
  });
});

test("a loss is ended by a frame of its own key, and not by one of another key", async () => {
  const directory = temporaryFolder();
  const states = () => {
    return rows<{ state: string | null }>(directory, "SELECT state FROM losses").map(
      ({ state }) => state,
    );
  };
  await withStore(directory, async (store) => {
    const lose = (sender: Partial<SourceInfo>, name: string) =>
      openVisible(store, sender).recordLoss(1, 1, new FramesError("not-stored"), name);
    lose(camera, "1.png");
    await putAll(store, openVisible(store, { ...other, session: "b".repeat(32) }), [
      ["1.png", bytesOf(10)],
    ]);
    expect(states()).toEqual([null]);
    // Nor does a report of another key for this name make a later one disappear.
    lose({ ...other, session: "b".repeat(32) }, "2.png");
    lose({ ...camera, session: otherSession }, "2.png");
    await store.flush();
    expect(states()).toEqual([null, null, null]);
    // The same bytes, sent with the key of the loss.
    const again = openVisible(store, { ...camera, session: otherSession });
    expect(await putAll(store, again, [["1.png", bytesOf(10)]])).toEqual(["present"]);
    expect(states()).toEqual(["came", null, null]);
    expect(await putAll(store, again, [["2.png", bytesOf(10)]])).toEqual(["stored"]);
    expect(states()).toEqual(["came", null, "came"]);
  });
});
