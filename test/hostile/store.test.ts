// Conflicts in one store, and obstacles at the path of a frame, against the compiled server:
// nothing is mixed up, and nothing outside the store is read or written.

import { spawnSync } from "node:child_process";
import { describe, expect, test } from "bun:test";
import {
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { dirname, join } from "node:path";

import type { ErrorName } from "../../src/errors.ts";
import { HostileGroup, kinds, type Step } from "../helper/hostile-group.ts";
import { contents, converse, json, source } from "../helper/hostile.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

const posix = process.platform === "win32" ? "skipped: needs a POSIX system: " : "";
const linux = process.platform === "linux" ? "" : "skipped: needs Linux: ";

/** Text of `contents` for a link or a pipe. */
const notFile = "(neither file nor folder)";

const isLink = (path: string) => lstatSync(path).isSymbolicLink();

/** Frames that collide in one store. */
const meetings: { what: string; hello?: object; steps: Step[]; keeps: Record<string, string> }[] = [
  {
    what: "a name that comes again with other bytes",
    steps: [
      { name: "1.png", expects: "stored" },
      { name: "1.png", payload: "other", expects: "conflict" },
      { name: "1.png", payload: "", expects: "conflict" },
      { name: "1.png", expects: "present" },
    ],
    keeps: { "a/1.png": "bytes" },
  },
  {
    what: "a name that comes again with other bytes and conflict skip",
    hello: { conflict: "skip" },
    steps: [
      { name: "1.png", expects: "stored" },
      { name: "1.png", payload: "other", expects: "conflict" },
    ],
    keeps: { "a/1.png": "bytes" },
  },
  {
    what: "a name that comes again with other bytes and conflict replace",
    hello: { conflict: "replace" },
    steps: [
      { name: "1.png", expects: "stored" },
      { name: "1.png", payload: "other", expects: "stored" },
      { name: "1.png", payload: "last", expects: "stored" },
    ],
    keeps: { "a/1.png": "last" },
  },
  {
    what: "a source below the path of a frame",
    steps: [
      { source: "a", name: "b", expects: "stored" },
      { source: "a/b", name: "1.png", expects: "not-stored" },
      { source: "a/b/c", name: "1.png", expects: "not-stored" },
    ],
    keeps: { "a/b": "bytes" },
  },
  {
    what: "a frame in place of a folder of frames",
    steps: [
      { source: "a/b", name: "1.png", expects: "stored" },
      { source: "a", name: "b", expects: "not-stored" },
    ],
    keeps: { "a/b/1.png": "bytes" },
  },
  {
    what: "a frame in place of a folder of frames with conflict replace",
    hello: { conflict: "replace", durable: true },
    steps: [
      { source: "a/b", name: "1.png", expects: "stored" },
      { source: "a", name: "b", expects: "not-stored" },
    ],
    keeps: { "a/b/1.png": "bytes" },
  },
];

/** Obstacles at the path of a frame, created in advance with a path around the store. */
const obstacles: {
  what: string;
  plant: (stream: string, outside: string) => void;
  expects: ErrorName;
  /** Result if conflicts may be replaced, if different. */
  replaced?: "stored";
}[] = [
  {
    what: "a link in place of the stream's folder",
    plant: (stream, outside) => symlinkSync(join(outside, "folder"), stream),
    expects: "not-stored",
  },
  {
    what: "a link in place of the source's folder",
    plant: (stream, outside) => {
      mkdirSync(stream);
      symlinkSync(join(outside, "folder"), join(stream, "a"));
    },
    expects: "not-stored",
  },
  {
    what: "a link to a folder of the store itself",
    plant: (stream) => symlinkSync(".frames", stream),
    expects: "not-stored",
  },
  {
    what: "a link to a file",
    plant: (stream, outside) => {
      mkdirSync(join(stream, "a"), { recursive: true });
      symlinkSync(join(outside, "secret.png"), join(stream, "a/1.png"));
    },
    expects: "not-stored",
  },
  {
    what: "a link to a missing file",
    plant: (stream, outside) => {
      mkdirSync(join(stream, "a"), { recursive: true });
      symlinkSync(join(outside, "new.png"), join(stream, "a/1.png"));
    },
    expects: "not-stored",
  },
  {
    what: "a folder",
    plant: (stream) => mkdirSync(join(stream, "a/1.png"), { recursive: true }),
    expects: "not-stored",
  },
  {
    what: "a hard link to a file outside",
    plant: (stream, outside) => {
      mkdirSync(join(stream, "a"), { recursive: true });
      linkSync(join(outside, "secret.png"), join(stream, "a/1.png"));
    },
    expects: "conflict",
    replaced: "stored",
  },
];

for (const [kind, isKeyed] of kinds) {
  describe(`Store of a server ${kind}`, () => {
    const group = new HostileGroup({ isKeyed });

    for (const { what, hello: fields, steps, keeps } of meetings) {
      test(`a server ${kind} mixes up no files when it receives ${what}`, async () => {
        const stream = group.newStream();
        await group.deliver({ stream, ...fields }, steps);
        group.expectKept(stream, keeps);
      });
    }

    for (const { what, plant, expects, replaced = expects } of obstacles) {
      for (const conflict of ["fail", "replace"] as const) {
        test.skipIf(posix !== "")(
          `${posix}a server ${kind} changes nothing outside its store for a frame at ${what}, with conflict ${conflict}`,
          async () => {
            const stream = group.newStream();
            const folder = group.folderOf(stream);
            plant(folder, join(group.guarded.around, "outside"));
            const before = isLink(folder) ? undefined : contents(folder);
            const outcome = conflict === "replace" ? replaced : expects;
            await group.deliver({ stream, conflict }, [{ name: "1.png", expects: outcome }]);
            expect(isLink(folder)).toBe(before === undefined);
            if (before === undefined) group.want(stream, notFile);
            else group.expectKept(stream, outcome === "stored" ? { "a/1.png": "bytes" } : before);
          },
        );
      }
    }

    for (const conflict of ["fail", "replace"] as const) {
      test.skipIf(linux !== "")(
        `${linux}a server ${kind} refuses a frame in place of a pipe without opening the pipe, with conflict ${conflict}`,
        async () => {
          const stream = group.newStream();
          mkdirSync(join(group.folderOf(stream), "a"), { recursive: true });
          expect(spawnSync("mkfifo", [join(group.folderOf(stream), "a/1.png")]).status).toBe(0);
          await group.deliver({ stream, conflict }, [{ name: "1.png", expects: "not-stored" }]);
          group.expectKept(stream, { "a/1.png": notFile });
        },
      );
    }

    test.skipIf(posix !== "")(
      `${posix}a server ${kind} changes nothing outside its store for a frame whose file was replaced by a link`,
      async () => {
        const stream = group.newStream();
        const path = join(group.folderOf(stream), "a/1.png");
        await group.deliver({ stream }, [{ name: "1.png", expects: "stored" }]);
        rmSync(path);
        symlinkSync(join(group.guarded.around, "outside/secret.png"), path);
        const steps: Step[] = [{ name: "1.png", payload: "other", expects: "not-stored" }];
        await group.deliver({ stream, conflict: "replace" }, steps);
        group.expectKept(stream, { "a/1.png": notFile });
      },
    );

    test.skipIf(posix !== "")(
      `${posix}a server ${kind} changes nothing outside its store for a frame whose folder was replaced by a link`,
      async () => {
        const stream = group.newStream();
        const folder = group.folderOf(stream);
        await group.deliver({ stream }, [{ name: "1.png", expects: "stored" }]);
        renameSync(folder, `${folder}-kept`);
        symlinkSync(join(group.guarded.around, "outside/folder"), folder);
        for (const conflict of ["fail", "replace"]) {
          const steps: Step[] = [{ name: "2.png", payload: "other", expects: "not-stored" }];
          await group.deliver({ stream, conflict }, steps);
        }
        group.want(stream, notFile);
        group.expectKept(`${stream}-kept`, { "a/1.png": "bytes" });
      },
    );

    test.skipIf(posix !== "")(
      `${posix}a server ${kind} compares no offered frame with a file behind a link`,
      async () => {
        const stream = group.newStream();
        const folder = group.folderOf(stream);
        const secret = join(group.guarded.around, "outside/secret.png");
        mkdirSync(join(folder, "a"), { recursive: true });
        symlinkSync(secret, join(folder, "a/1.png"));
        symlinkSync(dirname(secret), join(folder, "b"));
        const { length } = readFileSync(secret);
        const crc = Bun.hash.crc32(readFileSync(secret));
        const asked = [
          ["1.png", length, "0", 1, crc],
          ["secret.png", length, "0", 2, crc],
          ["../outside/secret.png", length, "0", 3, crc],
          ["../../../outside/secret.png", length, "0", 4],
        ];
        const says = ["a", "b"].flatMap((name, index) => [
          source(name, index + 1),
          json(type.OFFER, { frames: asked }, index + 1),
        ]);
        using peer = await converse(group.guarded, { stream }, ...says);
        await until("the answers", () => peer.bodies(type.ANSWER).length === 2);
        expect(peer.bodies(type.ANSWER)).toEqual([{ answers: "wwww" }, { answers: "wwww" }]);
        group.expectKept(stream, contents(folder));
        group.guarded.expectUnharmed();
      },
    );
  });
}

describe("Server with --portable-names", () => {
  const group = new HostileGroup({ isKeyed: false, args: ["--portable-names"] });

  // prettier-ignore
  const pairs: [what: string, first: [stream: string, source: string, name: string], second: [stream: string, source: string, name: string]][] = [
    ["a frame that differs in case", ["p1", "a", "A.png"], ["p1", "a", "a.png"]],
    ["a frame that differs in Unicode form", ["p2", "a", "caf\u00e9"], ["p2", "a", "cafe\u0301"]],
    ["a frame that differs in case beyond ASCII", ["p3", "a", "STRASSE"], ["p3", "a", "stra\u00dfe"]],
    ["a source that differs in case", ["p4", "Visible", "1.png"], ["p4", "visible", "2.png"]],
    ["a source folder that differs in case", ["p5", "Hall/a", "1.png"], ["p5", "hall/b", "1.png"]],
    ["a stream that differs in case", ["Run7", "a", "1.png"], ["run7", "a", "1.png"]],
    ["a stream that differs in Unicode form", ["caf\u00e9", "a", "1.png"], ["cafe\u0301", "a", "1.png"]],
    ["a folder that differs in case", ["p6", "p6", "Hall"], ["p6", "hall", "1.png"]],
  ];
  for (const [what, first, second] of pairs) {
    test(`a server with --portable-names refuses ${what} from a stored name`, async () => {
      for (const [expects, [stream, from, name]] of [
        ["stored", first],
        ["unportable-name", second],
      ] as const) {
        await group.deliver({ stream }, [{ source: from, name, expects }]);
      }
      const [stream, from, name] = first;
      const path = from === stream ? name : `${from}/${name}`;
      group.expectKept(stream, { [path]: "bytes" });
    });
  }

  // prettier-ignore
  const names = ["CON", "con.png", "nul .txt", "LPT1", "com\u00b9.png", "a:b", "C:1.png", "what?", "a*", "a|b", "<a>", '"', "dot.", "space ", "CONIN$"];
  for (const name of names) {
    test(`a server with --portable-names refuses a frame, source or stream named ${JSON.stringify(name)}`, async () => {
      const stream = group.newStream();
      const steps: Step[] = [
        { name, expects: "unportable-name" },
        { source: `b/${name}`, name: "1.png", expects: "unportable-name" },
      ];
      await group.deliver({ stream }, steps);
      await group.deliver({ stream }, steps.slice(1), { stream: name });
      group.expectKept(stream);
    });
  }
});
