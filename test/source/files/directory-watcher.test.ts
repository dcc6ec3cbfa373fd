// When a file that is being written counts as a frame: each complete file, and only complete ones.
//
// Covers: common/c-library.ts, common/capture-time.ts, source/files/folder-events.ts

import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRoot } from "../../../src/source/files/walk.ts";
import { type FolderEventHooks, WatcherEvents } from "../../../src/source/files/folder-events.ts";
import { encodePng } from "../../helper/png.ts";
import { temporaryFolder } from "../../helper/program.ts";
import { until } from "../../helper/time.ts";
import { refusal } from "../../helper/refusal.ts";
import { never, placeFile, StoppedClock, Watching } from "../../helper/watching.ts";

const isLinux = process.platform === "linux";
const jpeg = "\xff\xd8\xff\xe0 a picture \xff\xd9";
const png = Buffer.from(
  encodePng({ width: 1, height: 1, colour: "rgb8", pixels: new Uint8Array(3) }),
).toString("latin1");

function write(folder: string, name: string, text = name): void {
  mkdirSync(join(folder, name, ".."), { recursive: true });
  writeFileSync(join(folder, name), text, "latin1");
}

/** Sets the time of a file to an hour ago. */
function age(folder: string, name: string): void {
  const then = Date.now() / 1000 - 3600;
  utimesSync(join(folder, name), then, then);
}

/** Creates a folder with old files. */
function folderWith(...names: string[]): string {
  const folder = temporaryFolder();
  for (const name of names) {
    write(folder, name);
    age(folder, name);
  }
  return folder;
}

/** Waits until all changes in `folder` so far were noticed and due frames have arrived. */
async function noticed(watching: Watching, folder: string): Promise<void> {
  for (const mark of ["mark-1", "mark-2"]) {
    const before = watching.of(mark).length;
    placeFile(folder, mark);
    await until(`the frame ${mark}`, () => watching.of(mark).length > before);
    unlinkSync(join(folder, mark));
  }
}

describe("files present when a watch begins", () => {
  test("a watch gives the files already present in natural order by folder, then new files", async () => {
    const folder = folderWith("10.png", "9.png", "b/2", "b/10");
    using watching = new Watching(folder);
    await until("what was there", () => watching.came.length === 4);
    placeFile(folder, "11.png");
    await until("what arrived", () => watching.of("11.png").length === 1);
    const named = watching.came.map(({ source, name, sequence }) => [source, name, sequence]);
    expect(named.filter(([source]) => source === "run7")).toEqual([
      ["run7", "9.png", 1],
      ["run7", "10.png", 2],
      ["run7", "11.png", 3],
    ]);
    expect(named.filter(([source]) => source === "b")).toEqual([
      ["b", "2", 1],
      ["b", "10", 2],
    ]);
  });

  test("a watch gives a file already present after it has not changed for the settle time", async () => {
    const folder = temporaryFolder();
    write(folder, "a", "half");
    using watching = new Watching(folder, { settleMs: 500 });
    appendFileSync(join(folder, "a"), " and whole");
    await until("the frame", () => watching.came.length > 0);
    expect(watching.of("a")).toEqual(["half and whole"]);
  });

  test("a watch leaves out files older than --since until they change", async () => {
    const folder = folderWith("old", "changed");
    using watching = new Watching(folder, { since: BigInt(Date.now() - 60_000) * 1_000_000n });
    await noticed(watching, folder);
    expect(watching.of("old")).toEqual([]);
    appendFileSync(join(folder, "changed"), " since");
    await until("what changed", () => watching.of("changed").length > 0);
    expect(watching.of("changed")).toEqual(["changed since"]);
    expect(watching.of("old")).toEqual([]);
  });

  test("a JPEG already present without its end is sent, since it has not changed for long", async () => {
    const folder = temporaryFolder();
    write(folder, "a.jpg", `${jpeg}dhav`);
    age(folder, "a.jpg");
    using watching = new Watching(folder, { settleMs: 1000 });
    await until("the picture", () => watching.of("a.jpg").length > 0);
    expect(watching.of("a.jpg")).toEqual([`${jpeg}dhav`]);
  });
});

describe("complete files", () => {
  test("a renamed file is complete at once, also if the watch saw it before the rename", async () => {
    const folder = folderWith();
    write(folder, "a", "whole");
    using watching = new Watching(folder, { settleMs: 60_000 });
    renameSync(join(folder, "a"), join(folder, ".a"));
    renameSync(join(folder, ".a"), join(folder, "a"));
    await until("the frame, long before it has stood still", () => watching.of("a").length === 1);
  });

  test("a file renamed into place is complete at once", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: never });
    placeFile(folder, "a.png", png);
    placeFile(folder, "b.jpg", jpeg);
    placeFile(folder, "c", "anything");
    await until("three frames", () => watching.came.length === 3);
    expect(watching.of("a.png")).toEqual([png]);
  });

  test("a file hard-linked into place is complete at once", async () => {
    const folder = temporaryFolder();
    const elsewhere = temporaryFolder();
    using watching = new Watching(folder, { settleMs: never });
    write(elsewhere, "a");
    linkSync(join(elsewhere, "a"), join(folder, "a"));
    await until("the frame", () => watching.of("a").length === 1);
  });

  test("a file is complete after the settle time, not while it is still written slowly", async () => {
    const folder = temporaryFolder();
    using clock = new StoppedClock();
    using watching = new Watching(folder, { settleMs: 600 });
    const names = Array.from({ length: 20 }, (_, index) => `${index}`);
    for (const part of ["one ", "two ", "three ", "four"]) {
      for (const name of names) appendFileSync(join(folder, name), part);
      // Interval of the writing program, longer than a renamed file waits.
      placeFile(folder, `mark ${part}`);
      const isThere = () => watching.of(`mark ${part}`).length > 0;
      await until("the mark", () => (clock.pass(1), isThere()), 20);
    }
    expect(names.flatMap((name) => watching.of(name))).toEqual([]);
    clock.pass(600);
    await until("all of them", () => watching.came.length === 4 + names.length);
    for (const name of names) expect(watching.of(name)).toEqual(["one two three four"]);
  });

  for (const [what, name, text] of [
    ["a JPEG", "a.jpg", jpeg.slice(0, -2)],
    ["a PNG", "a.png", png.slice(0, -12)],
    ["a JPEG with another extension", "a.dat", jpeg.slice(0, -1)],
    ["a Motion Photo", "motion.jpg", `${jpeg}MotionPhoto_Data${"x".repeat(3000)}`],
    ["a PNG with a rest of the file before", "crop.png", `${png}the rest`],
    ["a JPEG with a number after its padding", "serial.jpg", `${jpeg}\0\0\xff\xff0042`],
  ] as const) {
    test(`${what} without its end at the last byte is complete when renamed, and after a longer wait when written`, async () => {
      const folder = temporaryFolder();
      using clock = new StoppedClock();
      using watching = new Watching(folder, { settleMs: 600 });
      write(folder, name, text);
      placeFile(folder, `renamed-${name}`, text);
      await until("the renamed one", () => watching.of(`renamed-${name}`).length > 0);
      write(folder, "other");
      await noticed(watching, folder);
      clock.pass(601);
      await until("one with nothing to wait for", () => watching.of("other").length > 0);
      await noticed(watching, folder);
      expect(watching.of(name)).toEqual([]);
      clock.pass(3000);
      await until("the written one", () => watching.of(name).length > 0);
      expect([watching.of(name), watching.of(`renamed-${name}`)]).toEqual([[text], [text]]);
    });
  }

  test("a picture whose end comes late is sent once, with its end", async () => {
    const folder = temporaryFolder();
    using clock = new StoppedClock();
    using watching = new Watching(folder, { settleMs: 600 });
    write(folder, "a.jpg", jpeg.slice(0, -2));
    await noticed(watching, folder);
    clock.pass(2000);
    await noticed(watching, folder);
    appendFileSync(join(folder, "a.jpg"), "\xff\xd9", "latin1");
    await noticed(watching, folder);
    clock.pass(601);
    await until("the whole picture", () => watching.of("a.jpg").length > 0);
    expect(watching.of("a.jpg")).toEqual([jpeg]);
  });

  test.skipIf(!isLinux)(
    "a file that is created with bytes is not complete at once, however late its events are read",
    async () => {
      const folder = temporaryFolder();
      using watching = new Watching(folder, { settleMs: never });
      write(folder, "written");
      // Nothing is read meanwhile.
      Bun.sleepSync(50);
      placeFile(folder, "renamed");
      await until("the renamed one", () => watching.of("renamed").length > 0);
      await noticed(watching, folder);
      expect(watching.of("written")).toEqual([]);
    },
  );

  test("an empty file is complete after the settle time", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder);
    write(folder, "a", "");
    await until("the frame", () => watching.came.length === 1);
    expect(watching.of("a")).toEqual([""]);
  });

  test("a watch gives a file once, although it rescans the folder", async () => {
    const folder = folderWith("old");
    using watching = new Watching(folder);
    placeFile(folder, "new");
    // Long enough for a full rescan.
    const before = performance.now();
    await until("some time", () => performance.now() - before > 1300);
    await noticed(watching, folder);
    expect([...watching.of("old"), ...watching.of("new")]).toEqual(["old", "new"]);
  });
});

describe("watched folders", () => {
  test("a folder created later is a source, and so are folders in it", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder);
    write(folder, "a/b/c/1");
    placeFile(folder, "a/2");
    await until("both", () => watching.came.length === 2);
    expect(watching.of("1", "a/b/c")).toEqual(["a/b/c/1"]);
    expect(watching.of("2", "a")).toEqual(["a/2"]);
    // The new folder is watched too.
    placeFile(folder, "a/b/c/3");
    await until("one more", () => watching.of("3", "a/b/c").length === 1);
  });

  test("a folder moved into the watch gives all its files", async () => {
    const folder = temporaryFolder();
    const elsewhere = folderWith(...Array.from({ length: 50 }, (_, index) => `a/deep/${index}`));
    using watching = new Watching(folder);
    renameSync(join(elsewhere, "a"), join(folder, "a"));
    await until("all", () => watching.came.length === 50);
    expect(new Set(watching.came.map(({ source }) => source))).toEqual(new Set(["a/deep"]));
  });

  test("a folder that is removed and created again gives new files of the same names", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder);
    for (const round of ["first", "second", "third"]) {
      write(folder, "a/1", round);
      await until(round, () => watching.of("1", "a").includes(round));
      rmSync(join(folder, "a"), { recursive: true });
    }
    expect(watching.of("1", "a")).toEqual(["first", "second", "third"]);
  });

  test("a folder that is moved away and created again gives new files of the same names", async () => {
    const folder = temporaryFolder();
    const elsewhere = temporaryFolder();
    using watching = new Watching(folder);
    for (const round of ["one", "two", "three"]) {
      write(folder, "a/1", round);
      await until(`round ${round}`, () => watching.of("1", "a").includes(round));
      renameSync(join(folder, "a"), join(elsewhere, round));
    }
    expect(watching.of("1", "a")).toEqual(["one", "two", "three"]);
  });

  test("a folder that replaces another gives new files of the same names", async () => {
    const folder = temporaryFolder();
    const elsewhere = temporaryFolder();
    write(folder, "a/1", "one");
    write(elsewhere, "a/1", "another");
    using watching = new Watching(folder);
    await until("what was there", () => watching.of("1", "a").length === 1);
    renameSync(join(folder, "a"), join(elsewhere, "before"));
    renameSync(join(elsewhere, "a"), join(folder, "a"));
    await until("what took its place", () => watching.of("1", "a").length === 2);
    expect(watching.of("1", "a")).toEqual(["one", "another"]);
  });

  test("a watched root that is missing for a while is reported once, and the watch continues", async () => {
    const folder = join(temporaryFolder(), "run7");
    mkdirSync(folder);
    using watching = new Watching(folder);
    renameSync(folder, `${folder}-away`);
    await until("a word of it", () => watching.troubles.length > 0);
    renameSync(`${folder}-away`, folder);
    placeFile(folder, "a");
    await until("what came since", () => watching.of("a").length === 1);
    expect(watching.troubles.map(({ code }) => code)).toEqual(["missing"]);
  });

  test("a folder that replaces the watched root gives new files of the same names", async () => {
    const folder = join(temporaryFolder(), "run7");
    write(folder, "a", "one");
    write(folder, "b/a", "two");
    using watching = new Watching(folder);
    await until("what was there", () => watching.came.length === 2);
    renameSync(folder, `${folder}-before`);
    write(folder, "a", "the other");
    write(folder, "b/a", "and another");
    await until("what took its place", () => watching.came.length === 4);
    expect(watching.of("a")).toEqual(["one", "the other"]);
    expect(watching.of("a", "b")).toEqual(["two", "and another"]);
    // The new folder is watched like the first one.
    write(folder, "b/a", "changed once more");
    await until("a change", () => watching.of("a", "b").length === 3);
  });

  test("a watch refuses roots whose sources have the same name", () => {
    const [first, second] = [folderWith("b/1"), folderWith("2")];
    const roots = [createRoot(first, "a", true), createRoot(second, "a/b", true)];
    expect(refusal(() => new Watching("", { roots })).code).toBe("usage");
  });
});

describe("several watched roots", () => {
  test("several roots are watched together", async () => {
    const [first, second] = [folderWith("1"), folderWith("2")];
    const roots = [createRoot(first, "a", true), createRoot(second, "b", true)];
    using watching = new Watching("", { roots });
    placeFile(first, "c/3");
    placeFile(second, "4");
    await until("all", () => watching.came.length === 4);
    const found = watching.came.map(({ source, name }) => `${source}/${name}`).sort();
    expect(found).toEqual(["a/1", "a/c/3", "b/2", "b/4"]);
  });
});

describe("files that are no frames", () => {
  test("a watch never gives hidden and unfinished files, links or pipes", async () => {
    const folder = temporaryFolder();
    const elsewhere = folderWith("far/picture");
    using watching = new Watching(folder);
    for (const name of [".hidden", "a.tmp", "a.part", ".folder/a"]) write(folder, name);
    symlinkSync(join(elsewhere, "far/picture"), join(folder, "link"));
    symlinkSync(join(elsewhere, "far"), join(folder, "linked-folder"));
    Bun.spawnSync(["mkfifo", join(folder, "pipe")]);
    await until("a word of each", () => watching.skipped.length >= 3);
    await noticed(watching, folder);
    expect(watching.came.filter(({ name }) => !name.startsWith("mark"))).toEqual([]);
    // Each is reported once, although every rescan finds it.
    const told = watching.skipped.map(({ path, why }) => `${path.slice(folder.length + 1)} ${why}`);
    expect(told.sort()).toEqual([
      "link a symbolic link",
      "linked-folder a symbolic link",
      "pipe a named pipe",
    ]);
  });

  test("a watch leaves out files that patterns exclude, in new folders too", async () => {
    const folder = temporaryFolder();
    const filter = { include: ["*.png"], exclude: ["thumbs/"] };
    using watching = new Watching(folder, { filter });
    write(folder, "thumbs/1.png");
    write(folder, "new/1.jpg");
    write(folder, "new/2.png");
    await until("the one", () => watching.of("2.png", "new").length === 1);
    expect(watching.came.length).toBe(1);
  });

  test("a hidden file becomes a frame when it is renamed, and names that differ in case are two frames", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: never });
    placeFile(folder, "A.PNG", `${png}`);
    placeFile(folder, "a.png", png);
    write(folder, ".hidden");
    renameSync(join(folder, ".hidden"), join(folder, "shown"));
    await until("three", () => watching.came.length === 3);
    expect(watching.came.map(({ name }) => name).sort()).toEqual(["A.PNG", "a.png", "shown"]);
  });
});

test("the loss of a removed file is reported although a new file reuses its inode", async () => {
  // Not on tmpfs, which does not reuse inode numbers.
  const folder = mkdtempSync(join(tmpdir(), "frames-watch-"));
  try {
    write(folder, "first");
    using watching = new Watching(folder, { settleMs: never });
    const { ino } = statSync(join(folder, "first"));
    await noticed(watching, folder);
    rmSync(join(folder, "first"));
    write(folder, "second");
    // Some file systems do not reuse the inode at once.
    const isGiven = statSync(join(folder, "second")).ino === ino;
    await until("the loss of the first", () => watching.of("first").length > 0);
    expect([isGiven, watching.of("first")]).toEqual([isGiven, ["lost: vanished"]]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

describe("folders without events", () => {
  /** Events of a file system that tells of nothing, such as NFS. */
  const silent = { watch() {}, poll() {}, close() {} };

  /** Changes that only a comparison of all known files finds. */
  const changes: [what: string, change: (path: string) => void, now: string][] = [
    ["grows after it was sent half", (path) => appendFileSync(path, " and whole"), "one and whole"],
    ["is written anew, with the same size", (path) => writeFileSync(path, "two"), "two"],
    [
      "is replaced by an older one",
      (path) => {
        writeFileSync(`${path}.part`, "older");
        utimesSync(`${path}.part`, 1000, 1000);
        renameSync(`${path}.part`, path);
      },
      "older",
    ],
    ["becomes empty", (path) => writeFileSync(path, ""), ""],
  ];
  for (const [what, change, now] of changes) {
    test(`a rescan finds that a sent file ${what}`, async () => {
      const folder = folderWith("old");
      write(folder, "deep/a", "one");
      age(folder, "deep/a");
      using watching = new Watching(folder, { openEvents: () => silent });
      await until("what was there", () => watching.came.length === 2);
      change(join(folder, "deep/a"));
      await until("its change", () => watching.of("a", "deep").length > 1);
      expect(watching.of("a", "deep")).toEqual(["one", now]);
      expect(watching.of("old")).toEqual(["old"]);
    });
  }

  test("a rescan compares 5,000 files in turns, and finds the changed ones", async () => {
    const names = Array.from({ length: 5000 }, (_, index) => `${index}`);
    const folder = folderWith(...names);
    using watching = new Watching(folder, { openEvents: () => silent });
    await until("what was there", () => watching.came.length === names.length);
    for (const name of ["0", "2500", "4999"]) write(folder, name, "changed");
    await until("the changed ones", () => watching.came.length === names.length + 3);
    expect(watching.of("2500")).toEqual(["2500", "changed"]);
  });

  test("files that are away for a while are not sent again", async () => {
    const folder = folderWith("a/1", "a/2");
    using watching = new Watching(folder, { openEvents: () => silent });
    await until("what was there", () => watching.came.length === 2);
    renameSync(join(folder, "a"), join(folder, ".away"));
    // Two files that are compared after those that are away.
    for (const mark of ["z/1", "z/2"]) {
      write(folder, mark, "one");
      await until("the mark", () => watching.of(mark.slice(2), "z").length === 1);
      write(folder, mark, "and two");
      await until("its change", () => watching.of(mark.slice(2), "z").length === 2);
    }
    renameSync(join(folder, ".away"), join(folder, "a"));
    write(folder, "a/3");
    await until("a new one", () => watching.of("3", "a").length === 1);
    expect([watching.of("1", "a"), watching.of("2", "a")]).toEqual([["a/1"], ["a/2"]]);
  });

  test("a watch that the system refuses says which limit to raise", async () => {
    const folder = folderWith("a");
    const error = Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
    using watching = new Watching(folder, {
      openEvents: ({ onError }) => ({ ...silent, watch: (path) => onError(path, error) }),
    });
    write(folder, "b/1");
    await until("both", () => watching.came.length === 2);
    expect(watching.troubles.map(({ message }) => message)).toEqual([
      expect.stringContaining("fs.inotify.max_user_watches"),
    ]);
  });

  test("lost events are made up for by a rescan at once", async () => {
    const folder = folderWith("a");
    let hooks: FolderEventHooks | undefined;
    using watching = new Watching(folder, {
      openEvents: (given) => ((hooks = given), silent),
    });
    await until("what was there", () => watching.came.length === 1);
    write(folder, "a", "changed");
    hooks!.onOverflow();
    await until("its change", () => watching.of("a").length === 2);
    expect(watching.of("a")).toEqual(["a", "changed"]);
  });
});

test("a whole file that is found without an event is told when the watch stops, and the next watch gives it", async () => {
  const folder = folderWith();
  placeFile(folder, "a");
  using stopped = new Watching(folder, { settleMs: never });
  stopped.watch.stop();
  await until("its loss", () => stopped.came.length === 1);
  expect(stopped.came).toMatchObject([{ name: "a", lost: "stopped" }]);
  using next = new Watching(folder);
  await until("the file", () => next.came.length === 1);
  expect(next.came).toMatchObject([{ name: "a", bytes: "a" }]);
});

describe("events of fs.watch", () => {
  const openEvents = (hooks: FolderEventHooks) => new WatcherEvents(hooks);

  test("a file renamed into place is complete at once, and a written one after the settle time", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { openEvents, settleMs: never });
    write(folder, "written");
    write(folder, ".a");
    age(folder, ".a");
    renameSync(join(folder, ".a"), join(folder, "a"));
    await until("the renamed one", () => watching.of("a").length > 0);
    expect(watching.of("written")).toEqual([]);
  });

  test("a new folder, a change and a new file are found", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { openEvents });
    write(folder, "a/b/1", "one");
    await until("the file", () => watching.of("1", "a/b").length === 1);
    write(folder, "a/b/1", "and two");
    await until("its change", () => watching.of("1", "a/b").length === 2);
    unlinkSync(join(folder, "a/b/1"));
    placeFile(folder, "a/b/2");
    await until("another file", () => watching.of("2", "a/b").length === 1);
    placeFile(folder, "a/b/1", "three");
    await until("a new one", () => watching.of("1", "a/b").length === 3);
  });

  test("a folder that replaces the watched root is watched like the first one", async () => {
    const folder = join(temporaryFolder(), "run7");
    write(folder, "a", "one");
    using watching = new Watching(folder, { openEvents });
    await until("what was there", () => watching.came.length === 1);
    renameSync(folder, `${folder}-before`);
    write(folder, "a", "the other");
    await until("what took its place", () => watching.of("a").length === 2);
    write(folder, "a", "changed once more");
    await until("a change", () => watching.of("a").length === 3);
  });
});

describe("equal sizes and times", () => {
  const changes: [what: string, change: (path: string) => void][] = [
    [
      "is renamed into place",
      (path) => {
        writeFileSync(`${path}.part`, "two");
        utimesSync(`${path}.part`, 1000, 1000);
        renameSync(`${path}.part`, path);
      },
    ],
    [
      "is written in place, and its time set back",
      (path) => {
        writeFileSync(path, "two");
        utimesSync(path, 1000, 1000);
      },
    ],
    [
      "is created anew",
      (path) => {
        unlinkSync(path);
        writeFileSync(path, "two");
        utimesSync(path, 1000, 1000);
      },
    ],
  ];
  for (const [what, change] of changes) {
    test.skipIf(!isLinux)(`a file of the same size and time that ${what} is sent`, async () => {
      const folder = temporaryFolder();
      write(folder, "a.raw", "one");
      utimesSync(join(folder, "a.raw"), 1000, 1000);
      using watching = new Watching(folder);
      await until("the first", () => watching.of("a.raw").length === 1);
      change(join(folder, "a.raw"));
      await until("the second", () => watching.of("a.raw").includes("two"));
    });
  }
});

describe("renamed files and folders", () => {
  test("a folder with an incomplete file that is renamed is no loss", async () => {
    const folder = temporaryFolder();
    using watching = new Watching(folder, { settleMs: 50 });
    write(folder, "untitled folder/deep/1");
    renameSync(join(folder, "untitled folder"), join(folder, "day1"));
    await until("the file", () => watching.of("1", "day1/deep").length > 0);
    // A loss of the renamed file would be reported before this one.
    placeFile(folder, "gone", "queued and gone");
    unlinkSync(join(folder, "gone"));
    write(folder, "half.jpg", jpeg.slice(0, 8));
    await noticed(watching, folder);
    unlinkSync(join(folder, "half.jpg"));
    await until("a loss", () => watching.of("half.jpg").length > 0);
    const lost = watching.came.filter(({ lost }) => lost !== undefined).map(({ name }) => name);
    expect(lost).not.toContain("1");
  });

  for (const [what, from, to] of [
    ["a queued file", "a/1", "a/2"],
    ["the folder of a queued file", "a", "b"],
    ["the folder above a queued file", "x", "y"],
  ] as const) {
    test(`${what} that is renamed before it is read is no loss`, async () => {
      const folder = temporaryFolder();
      const path = what.includes("above") ? "x/a/1" : "a/1";
      mkdirSync(join(folder, path, ".."), { recursive: true });
      using watching = new Watching(folder, { isHeld: true });
      placeFile(folder, path, "a picture");
      await until("the source", () => watching.sources.size === 1);
      renameSync(join(folder, from), join(folder, to));
      watching.release();
      await until("the file", () => watching.came.some(({ bytes }) => bytes === "a picture"));
      placeFile(folder, "gone/mark");
      const gone = join(folder, "gone/unfinished");
      write(folder, "gone/unfinished");
      await until("the mark", () => watching.of("mark", "gone").length > 0);
      unlinkSync(gone);
      await until("the last", () => watching.of("unfinished", "gone").length > 0);
      const lost = watching.came.filter(({ lost }) => lost !== undefined);
      expect(lost.map(({ name }) => name).filter((name) => name !== "unfinished")).toEqual([]);
    });
  }
});

describe("times out of range", () => {
  for (const [when, year] of [
    ["before", "1601-01-01T00:00:00Z"],
    ["after", "2400-01-01T00:00:00Z"],
    ["long after", "9999-12-31T23:59:59Z"],
  ] as const) {
    test.skipIf(!isLinux)(
      `a watched file ${when} all capture times is sent once, and told`,
      async () => {
        const folder = temporaryFolder();
        write(folder, "a");
        Bun.spawnSync(["touch", "-d", year, join(folder, "a")]);
        using watching = new Watching(folder);
        await until("the file", () => watching.of("a").length > 0);
        await noticed(watching, folder);
        expect([watching.of("a"), watching.clamped]).toEqual([["a"], [join(folder, "a")]]);
      },
    );
  }
});
