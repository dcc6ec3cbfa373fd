// Every flag of `frames send` with every kind of source: it works, or is refused at the start.
//
// Covers: client/plan/flag-rules.ts

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { flagsOf } from "../../src/cli/args/flags.ts";
import { send } from "../../src/client/send.ts";
import { FramesError } from "../../src/errors.ts";
import { expectCode, withServer } from "../helper/delivery.ts";
import { ffmpeg, needs } from "../helper/ffmpeg.ts";
import {
  freePort,
  jsonLines,
  launch,
  run,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

/** Frames of every source here. */
const frames = 2;

const kinds = [
  "directory",
  "picture",
  "pictures",
  "link",
  "video",
  "pipe",
  "url",
  "camera",
] as const;
type Kind = (typeof kinds)[number];

/** A flag, or several, as a user writes them. `FOLDER` is replaced by a new folder. */
interface Row {
  readonly words: readonly string[];
  /**
   * One letter for each kind, in the order of `kinds`: `w` works, `r` is refused at the start. No
   * camera can be tried, so `w` of a camera means that it was looked for.
   */
  readonly expects: string;
}

/** Rows by the name of the flag; flags that need another one have a row with it. */
const rows: Readonly<Record<string, readonly Row[]>> = {
  insecure: [{ words: ["--insecure"], expects: "wwwwwwww" }],
  "key-file": [{ words: ["--key-file", "KEYS"], expects: "wwwwwwww" }],
  article: [{ words: ["--article"], expects: "wwwwwwww" }],
  to: [{ words: [], expects: "wwwwwwww" }],
  stream: [{ words: ["--stream", "other"], expects: "wwwwwwww" }],
  source: [{ words: ["--source", "other"], expects: "wwwwwwww" }],
  include: [{ words: ["--include", "*"], expects: "wrrrrrrr" }],
  exclude: [{ words: ["--exclude", "*.none"], expects: "wrrrrrrr" }],
  "on-conflict": [
    { words: ["--on-conflict", "fail"], expects: "wwwwwwww" },
    { words: ["--on-conflict", "skip"], expects: "wwwwwwww" },
    { words: ["--on-conflict", "replace"], expects: "wwwwwwww" },
  ],
  checksum: [{ words: ["--checksum"], expects: "wwwwwwww" }],
  again: [{ words: ["--again"], expects: "wwwwwwww" }],
  move: [
    { words: ["--move"], expects: "wwwrrrrr" },
    { words: ["--move", "--fps", "100"], expects: "wwwrrrrr" },
    { words: ["--move", "--realtime"], expects: "wwwrrrrr" },
  ],
  "dry-run": [
    { words: ["--dry-run"], expects: "wwwrrrrr" },
    { words: ["--dry-run", "--fps", "100"], expects: "wwwrrrrr" },
    { words: ["--dry-run", "--watch"], expects: "rrrrrrrr" },
  ],
  watch: [
    { words: ["--watch"], expects: "wrrrrrrr" },
    { words: ["--watch", "--move"], expects: "wrrrrrrr" },
    { words: ["--watch", "--fps", "100"], expects: "wrrrrrrr" },
    { words: ["--watch", "--realtime"], expects: "rrrrrrrr" },
  ],
  since: [
    { words: ["--since", "1h"], expects: "rrrrrrrr" },
    { words: ["--since", "1h", "--watch"], expects: "wrrrrrrr" },
  ],
  settle: [
    { words: ["--settle", "100"], expects: "rrrrrrrr" },
    { words: ["--settle", "100", "--watch"], expects: "wrrrrrrr" },
  ],
  policy: [
    { words: ["--policy", "block"], expects: "wwwwwwww" },
    { words: ["--policy", "latest:9"], expects: "rrrrwwww" },
  ],
  spool: [{ words: ["--spool", "FOLDER"], expects: "rrrrrwrw" }],
  "spool-size": [
    { words: ["--spool-size", "1M"], expects: "rrrrrrrr" },
    { words: ["--spool-size", "1M", "--spool", "FOLDER"], expects: "rrrrrwrw" },
  ],
  camera: [{ words: ["--camera", "64x48"], expects: "rrrrrrrw" }],
  quality: [{ words: ["--quality", "5"], expects: "rrrrwrww" }],
  lossless: [{ words: ["--lossless"], expects: "rrrrwrww" }],
  convert: [
    { words: ["--convert", "jpeg"], expects: "rrrrwrww" },
    { words: ["--convert", "png"], expects: "rrrrwrww" },
  ],
  "copy-video": [
    { words: ["--copy-video"], expects: "rrrrwrww" },
    { words: ["--copy-video", "--quality", "5"], expects: "rrrrrrrr" },
    { words: ["--copy-video", "--convert", "jpeg"], expects: "rrrrrrrr" },
  ],
  "fail-on-gap": [{ words: ["--fail-on-gap"], expects: "wwwwwwww" }],
  fps: [{ words: ["--fps", "100"], expects: "wwwwwwww" }],
  realtime: [
    { words: ["--realtime"], expects: "wwwwwwww" },
    { words: ["--realtime", "--fps", "100"], expects: "rrrrrrrr" },
  ],
  bwlimit: [{ words: ["--bwlimit", "10M"], expects: "wwwwwwww" }],
  raw: [
    { words: ["--raw", "4x2:gray8"], expects: "rrrrrwrr" },
    { words: ["--raw", "h264"], expects: "rrrrrwrr" },
  ],
  multipart: [{ words: ["--multipart", "--raw", "4x2:gray8"], expects: "rrrrrrrr" }],
  receipts: [{ words: ["--receipts"], expects: "wwwwwwww" }],
  timeout: [{ words: ["--timeout", "60"], expects: "wwwwwwww" }],
  "give-up-after": [{ words: ["--give-up-after", "60"], expects: "wwwwwwww" }],
  json: [{ words: [], expects: "wwwwwwww" }],
  quiet: [{ words: ["--quiet"], expects: "wwwwwwww" }],
  verbose: [{ words: ["--verbose"], expects: "wwwwwwww" }],
};

const articleUnsupported = new Set([
  ...["key-file", "on-conflict", "checksum", "again", "move", "watch", "spool", "bwlimit"],
  ...["give-up-after", "since", "settle", "spool-size", "receipts"],
  "copy-video",
]);

let plain: Server;
let guarded: Server;
let keys: string;
const articlePort = freePort();
let clip: Uint8Array<ArrayBuffer>;
/** The same pictures in Annex B. */
let annexB: Buffer<ArrayBuffer>;
let web: Bun.Server<undefined>;
let count = 0;

const picture = (seed: number) => `P5 2 2 255\n${String(seed).repeat(4)}`;
const rawFrames = Buffer.alloc(frames * 8, 7);

beforeAll(async () => {
  if (needs !== "") return;
  plain = await startServer({
    dir: temporaryFolder(),
    args: ["--article", `127.0.0.1:${articlePort}`],
  });
  keys = join(temporaryFolder(), "keys");
  expectCode(await run(["key", "new", "test", "--key-file", keys]), 0);
  guarded = await startServer({ dir: temporaryFolder(), args: ["--key-file", keys] });
  const path = join(temporaryFolder(), "clip.mp4");
  const input = ["-f", "lavfi", "-i", `testsrc=size=64x48:rate=10:duration=${frames / 10}`];
  await ffmpeg(...input, "-pix_fmt", "yuv420p", path);
  clip = await Bun.file(path).bytes();
  annexB = Buffer.from(await ffmpeg("-i", path, "-c", "copy", "-f", "h264", "-"));
  web = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response(clip) });
});

afterAll(async () => {
  await Promise.all([plain?.stop(), guarded?.stop(), web?.stop(true)]);
});

/** Makes a source of a kind in a new folder. */
function makeSource(kind: Kind, raw?: string) {
  const folder = join(temporaryFolder(), "shots");
  mkdirSync(folder);
  const names = Array.from({ length: frames }, (_, index) => `${index + 1}.pgm`);
  const files = kind === "picture" || kind === "link" ? names.slice(0, 1) : names;
  for (const [index, name] of files.entries()) writeFileSync(join(folder, name), picture(index));
  const paths = files.map((name) => join(folder, name));
  const named = ["--stream", `s${++count}`];
  const withSource = [...named, "--source", "cam"];
  switch (kind) {
    case "directory":
      return { folder, words: [folder, ...named], count: frames };
    case "picture":
      return { folder, words: [...paths, ...named], count: 1 };
    case "pictures":
      return { folder, words: [...paths, ...named], count: frames };
    case "link": {
      const link = join(temporaryFolder(), "link.pgm");
      symlinkSync(paths[0]!, link);
      return { folder, words: [link, ...named], count: 1 };
    }
    case "video": {
      const path = join(folder, "clip.mp4");
      writeFileSync(path, clip);
      return { folder, words: [path, ...named], count: frames };
    }
    case "pipe": {
      const pictures = Buffer.from(names.map((_, seed) => picture(seed)).join(""));
      const stdin = raw === undefined ? pictures : raw === "h264" ? annexB : rawFrames;
      return { folder, words: ["-", ...withSource], stdin, count: frames };
    }
    case "url":
      return {
        folder,
        words: [`http://127.0.0.1:${web.port}/clip.mp4`, ...withSource],
        count: frames,
      };
    case "camera":
      return { folder, words: ["/dev/video97", ...withSource], count: frames };
  }
}

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The frames of the last stream or of the stream `other`, in the store of this server. */
function stored(server: Server, words: readonly string[]): string[] {
  const stream = words[words.lastIndexOf("--stream") + 1]!;
  const folder = join(server.dir, stream);
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((path) =>
    path.includes("."),
  );
}

async function expectOutcome(kind: Kind, row: Row, isExpected: boolean): Promise<void> {
  const rawAt = row.words.indexOf("--raw");
  const source = makeSource(kind, rawAt < 0 ? undefined : row.words[rawAt + 1]);
  const { words: own, count: total, folder } = source;
  const server = row.words.includes("--key-file") ? guarded : plain;
  const isArticle = row.words.includes("--article");
  const port = isArticle ? articlePort : server.port;
  const options = row.words.map((word) =>
    word === "KEYS" ? keys : word === "FOLDER" ? join(temporaryFolder(), "spool") : word,
  );
  const isOther = row.words.includes("--stream");
  if (isOther) options[options.indexOf("--stream") + 1] = `other${++count}`;
  const isNamed = row.words.includes("--source");
  const from = isNamed ? own.slice(0, own.indexOf("--stream") + 2) : own;
  const words = ["send", ...from, ...options, "--to", `127.0.0.1:${port}`, "--json"];
  const isWatching = isExpected && kind === "directory" && row.words.includes("--watch");
  const done = isWatching
    ? await watchUntilStored(words, server, total)
    : await run(words, source.stdin === undefined ? {} : { stdin: source.stdin });
  const what = `frames send ${row.words.join(" ")} (${kind}): ${done.stderr}`;
  const isRefusal = done.code === 1 && /^frames: Cannot /m.test(done.stderr);
  if (!isExpected) {
    expect([what, done.code, isRefusal, stored(server, words)]).toEqual([what, 1, true, []]);
    expect(done.stderr.trim().split("\n")).toHaveLength(1);
    return;
  }
  if (kind === "camera") {
    expect(done.stderr).toContain("/dev/video97: no such file");
    return;
  }
  expect([what, done.code]).toEqual([what, 0]);
  const isDryRun = row.words.includes("--dry-run");
  expect([what, stored(server, words).length]).toEqual([what, isDryRun ? 0 : total]);
  const listed = jsonLines(done.stdout).filter(({ type }) => type === "frame");
  if (isDryRun) expect(listed).toHaveLength(total);
  if (row.words.includes("--move")) expect([what, readdirSync(folder)]).toEqual([what, []]);
}

async function watchUntilStored(
  words: readonly string[],
  server: Server,
  total: number,
): Promise<Outcome> {
  using sender = launch([...words]);
  const isOver = () => sender.child.exitCode !== null;
  const isMoving = words.includes("--move");
  const isDone = () =>
    stored(server, words).length === total && (!isMoving || readdirSync(words[1]!).length === 0);
  await until("the frames, or the end of the sender", () => isOver() || isDone());
  sender.child.kill("SIGINT");
  return await sender.ended();
}

describe.skipIf(needs !== "")(`${needs}frames send`, () => {
  test("the table of flags in this file names every flag of frames send", () => {
    const named = flagsOf("send").map(({ name }) => name);
    expect(Object.keys(rows).sort()).toEqual(named.filter((name) => name !== "help").sort());
  });

  for (const kind of kinds) {
    for (const [flag, flagRows] of Object.entries(rows)) {
      for (const row of flagRows) {
        const isExpected = row.expects[kinds.indexOf(kind)] === "w";
        const verb = isExpected ? "works" : "is refused at the start";
        test(`${[`--${flag}`, ...row.words].join(" ")} with a ${kind} ${verb}`, async () => {
          await expectOutcome(kind, row, isExpected);
        });
      }
    }
  }

  for (const flag of articleUnsupported) {
    test(`--article with --${flag} is refused before a source is opened`, async () => {
      const [row] = rows[flag]!;
      const words = ["send", "-", "--stream", "S", "--source", "cam", "--to", "127.0.0.1:1"];
      const spool = join(temporaryFolder(), "spool");
      const options = row!.words.map((word) =>
        word === "KEYS" ? keys : word === "FOLDER" ? spool : word,
      );
      const refused = await run([...words, "--article", ...options]);
      expectCode(refused, 1);
      expect(existsSync(spool)).toBe(false);
    });
  }

  test("a flag for one source of several must suit that source", async () => {
    const { folder } = makeSource("directory");
    const both = ["--stream", "S", "--source", "cam=-", "--source", `dir=${folder}`];
    for (const [setting, code] of [
      ["--policy cam=block", 0],
      ["--policy dir=block", 0],
      ["--policy dir=latest", 1],
      ["--raw dir=4x2:gray8", 1],
      ["--raw other=4x2:gray8", 1],
      ["--quality cam=5", 1],
      ["--move", 1],
      ["--dry-run", 1],
      ["--include *", 0],
    ] as const) {
      const to = ["--to", `127.0.0.1:${plain.port}`];
      const done = await run(["send", ...both, ...setting.split(" "), ...to], {
        stdin: picture(1),
      });
      expect([setting, done.code, done.stderr]).toEqual([setting, code, done.stderr]);
    }
  });
});

describe("send() of a program's frames", () => {
  /** Options by outcome: those that work, and those that are refused before a frame is taken. */
  const works = [
    { checksum: true },
    { again: true },
    { onConflict: "replace" },
    { policy: "latest:9" },
    { policy: "block", failOnGap: true },
    { raw: "4x2:gray8" },
    { fps: "1000" },
    { realtime: true },
    { maxBytesPerSecond: 1e7 },
  ] as const;
  const refused = [
    { move: true },
    { watch: true },
    { since: 0n },
    { settleMs: 1 },
    { include: ["*"] },
    { exclude: ["*"] },
    { camera: "64x48" },
    { quality: "5" },
    { lossless: true },
    { convert: "jpeg" },
    { copyVideo: true },
    { spoolSize: 1 },
  ] as const;

  test("an option works, or is refused before the first frame is taken", async () => {
    await withServer(async ({ port, dir }) => {
      let taken = 0;
      function* shots() {
        for (let shot = 0; shot < frames; shot++) {
          taken++;
          yield { bytes: rawFrames.subarray(0, 8) };
        }
      }
      for (const [index, options] of [...works, ...refused].entries()) {
        taken = 0;
        const base = { to: `127.0.0.1:${port}`, stream: `p${index}`, source: "cam" };
        const sent = await send(shots(), { ...base, ...options }).catch((error: unknown) => error);
        if (index < works.length) {
          expect([options, sent]).toMatchObject([options, { frames, lost: 0, refused: 0 }]);
        } else {
          expect([options, sent]).toMatchObject([options, { code: "usage" }]);
          expect(sent).toBeInstanceOf(FramesError);
          expect([options, taken, existsSync(join(dir, `p${index}`))]).toEqual([options, 0, false]);
        }
      }
    });
  });
});
