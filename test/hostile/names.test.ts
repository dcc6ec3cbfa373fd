// Names that would leave the store or control a terminal, against the compiled server: which are
// refused, which are stored, and how they are displayed.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";

import { HostileGroup, kinds, type Step } from "../helper/hostile-group.ts";
import { end, frame, hello, json, Peer, preface, source } from "../helper/hostile.ts";
import { launch, temporaryFolder } from "../helper/program.ts";
import { until } from "../helper/time.ts";
import { type } from "../wire/vectors.ts";

const linux = process.platform === "linux" ? "" : "skipped: needs Linux: ";

const escapes: Record<string, string> = {
  NUL: "\0",
  "a line feed": "\n",
  "a sequence that clears the screen": "\x1b[2J\x1b[H",
  "a sequence that sets the title": "\x1b]0;mine\x07",
  DEL: "\x7f",
  "a C1 control character": "\u009b31m",
};
const withEscapes = Object.entries(escapes).map(([what, text]) => [what, `a${text}b`]);

/** Target of an absolute name. */
const escaped = "/tmp/frames-escaped.png";

/** Frame names that are refused. */
const frameNames: [what: string, name: string][] = [
  ["the folder above", ".."],
  ["the folder itself", "."],
  ["a file above", "../escaped.png"],
  ["a file far above", "../../../outside/secret.png"],
  ["a file from the root on", escaped],
  ["a hidden file", ".hidden"],
  ["three dots", "..."],
  ["a file in a folder", "b/1.png"],
  ["a file above, as Windows writes it", "..\\escaped.png"],
  ["a share of another machine", "\\\\host\\share"],
  ["a drive", "C:"],
  ...withEscapes.map(([what, name]) => [what!, name!] as [string, string]),
];

/** Source and stream names that are refused. */
const folderNames: [what: string, name: string][] = [
  ...frameNames.filter(([, name]) => name !== "b/1.png"),
  ["the store's own folder", ".frames"],
  ["half of a character", "\ud800"],
];
const sourceNames: [what: string, name: string][] = [
  ...folderNames,
  ["an empty name", ""],
  ["a part of 256 bytes", "ä".repeat(128)],
  ["the folder of partial files", ".frames/partial"],
  ["a path down and up", "a/../../outside"],
  ["a path with a dot", "a/./b"],
  ["two slashes in a row", "a//b"],
  ["a slash at the end", "a/"],
  ["33 parts", "a/".repeat(32) + "a"],
  ["1,025 bytes", Array.from({ length: 5 }, () => "a".repeat(204)).join("/") + "a"],
];
const streamNames: [what: string, name: string][] = [
  ...folderNames,
  ["a folder in a folder", "a/b"],
  ["a source of another stream", "honest/visible"],
];

/** Fatal as the stream in HELLO. */
const streamsOfLength: [what: string, name: string][] = [
  ["an empty name", ""],
  ["256 bytes", "ä".repeat(128)],
];

/** Unusual but valid names. */
const goodNames: string[] = [
  "n".repeat(255),
  "é".repeat(127),
  "~",
  "-rf",
  "%2e%2e%2f1.png",
  "$(touch x)",
  "CON",
  " ",
  "C:1.png",
  "\u202egnp.1",
];

for (const [kind, isKeyed] of kinds) {
  describe(`Names at a server ${kind}`, () => {
    const group = new HostileGroup({ isKeyed });
    const good: Step = { name: "1.png", expects: "stored" };
    const kept = { "a/1.png": "bytes" };

    for (const [what, name] of frameNames) {
      test(`a server ${kind} refuses a frame name (${what}) and stores the next frame`, async () => {
        const stream = group.newStream();
        await group.deliver({ stream }, [{ name, expects: "bad-name" }, good]);
        group.expectKept(stream, kept);
        expect(existsSync(escaped)).toBe(false);
      });
    }

    for (const [what, name] of sourceNames) {
      test(`a server ${kind} refuses a source name (${what}) and stores the next frame`, async () => {
        const stream = group.newStream();
        const bad: Step = { source: name, name: "2.png", expects: "bad-name" };
        await group.deliver({ stream }, [bad, good]);
        group.expectKept(stream, kept);
        expect(existsSync(escaped)).toBe(false);
      });
    }

    const bad: Step[] = [{ name: "1.png", expects: "bad-name" }];
    for (const [what, name] of streamNames) {
      test(`a server ${kind} refuses frames of a stream name in HELLO (${what})`, async () => {
        await group.deliver({ stream: name }, bad);
      });
    }
    for (const [what, name] of [...streamNames, ...streamsOfLength]) {
      test(`a server ${kind} refuses frames of a stream name in SOURCE (${what})`, async () => {
        const stream = group.newStream();
        await group.deliver({ stream }, bad, { stream: name });
        group.expectKept(stream);
      });
    }

    test.skipIf(linux !== "")(
      `${linux}a server ${kind} stores frames and sources with unusual valid names unchanged`,
      async () => {
        const steps = goodNames.flatMap((name): Step[] => [
          { name, expects: "stored" },
          { source: name, name: "1.png", expects: "stored" },
        ]);
        await group.deliver({ stream: "good" }, steps);
        const paths = goodNames.flatMap((name) => [`a/${name}`, `${name}/1.png`]);
        group.expectKept("good", Object.fromEntries(paths.map((path) => [path, "bytes"])));
      },
    );
  });
}

for (const words of [[], ["-v"], ["--json"]]) {
  describe(`Log of ${["frames serve", ...words].join(" ")}`, () => {
    const dir = temporaryFolder();
    const server = launch(["serve", dir, "--listen", "127.0.0.1:0", ...words]);
    const said = () => server.stdout() + server.stderr();
    const target = { port: 0 };
    beforeAll(async () => {
      await until("the greeting", () => /Listening at 127\.0\.0\.1:\d+/.test(said()));
      target.port = Number(/Listening at 127\.0\.0\.1:(\d+)/.exec(said())![1]);
    });
    afterAll(async () => {
      server.child.kill("SIGTERM");
      expect((await server.ended()).code).toBe(0);
      rmSync(dir, { recursive: true, force: true });
    });

    const raw = (bytes: Buffer) => (peer: Peer) => peer.write(bytes);
    const greeted =
      (fields: object, ...says: Buffer[]) =>
      (peer: Peer) =>
        peer.write(Buffer.concat([preface, hello(target, { stream: "s", ...fields }), ...says]));
    const says = (trick: string): Record<string, (peer: Peer) => void> => ({
      "the name of a frame": greeted({}, source("a"), frame({ name: trick }), end(1)),
      "the name of a source": greeted({}, source(trick), frame(), end(1)),
      "the name of a stream": greeted({ stream: trick }, source("a"), frame(), end(1)),
      "the name of a client's software": greeted({ software: trick }, end(0)),
      "the reason of a loss": greeted(
        {},
        source("a"),
        json(type.LOST, { ranges: [[1, 1]], error: 51, message: trick }, 1),
        end(0),
      ),
      "an ERROR": greeted({}, json(type.ERROR, { error: 8, message: trick })),
      "a client's first bytes": raw(Buffer.from(`${trick} and more than a preface`, "latin1")),
    });
    for (const place of Object.keys(says(""))) {
      test(`${["frames serve", ...words].join(" ")} logs no control characters from ${place}`, async () => {
        for (const trick of Object.values(escapes)) {
          using peer = await Peer.connect(target);
          says(`odd${trick}`)[place]!(peer);
          await until("a line about it", () => said().includes(peer.name));
          await until("an end", () => peer.isClosed || peer.messages().length > 1);
        }
        await until("what was to be seen", () => /odd\\(?:x1b|u001b|\\u001b)/.test(said()));
        expect(said().replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
      });
    }
  });
}
