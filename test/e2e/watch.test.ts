// A watched folder from a user's view: the executable beside a capture program, until Ctrl-C.

import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  expectCode,
  journal,
  type Json,
  relayTo,
  summaryOf,
  withServer,
} from "../helper/delivery.ts";
import {
  environment,
  freePort,
  jsonLines,
  type Launched,
  launch,
  run,
  sameTree,
  type Server,
  startServer,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

const jpeg = Buffer.from("\xff\xd8\xff\xe0 a picture \xff\xd9", "latin1");

/** Creates a folder run7 to watch. */
function newFolder(...folders: string[]): string {
  const folder = join(temporaryFolder(), "run7");
  mkdirSync(folder);
  for (const below of folders) mkdirSync(join(folder, below), { recursive: true });
  return folder;
}

/** Writes a file to a temporary path and renames it into place. */
function place(folder: string, name: string, text: string | Uint8Array = name): void {
  writeFileSync(join(folder, `${name}.part`), text);
  renameSync(join(folder, `${name}.part`), join(folder, name));
}

function watch(folder: string, to: Pick<Server, "port"> | string, ...more: string[]): Launched {
  const address = typeof to === "string" ? to : `127.0.0.1:${to.port}`;
  return launch(["send", folder, "--watch", "--to", address, "--json", ...more]);
}

/** Stops a sender with Ctrl-C and returns its summary. */
async function stop(sender: Launched, code = 0): Promise<Json> {
  sender.child.kill("SIGINT");
  const ended = await sender.ended();
  expectCode(ended, code);
  return summaryOf(ended);
}

interface Row {
  readonly source: string;
  readonly name: string;
  readonly session: string;
  readonly seq: number;
}

function rowsOf({ dir }: { readonly dir: string }): Row[] {
  return journal<Row>(dir, "SELECT source, name, session, seq FROM frames ORDER BY id");
}

async function arrived(server: Server, count: number, what = `${count} frames`): Promise<void> {
  await until(what, () => existsSync(join(server.dir, "run7")) && rowsOf(server).length >= count);
}

function stored(server: Server, path: string): string {
  const whole = join(server.dir, "run7", path);
  return existsSync(whole) ? readFileSync(whole, "latin1") : "";
}

/** Returns a sender's output lines of one type. */
function said(sender: Launched, type: string): Json[] {
  const text = sender.stdout();
  return jsonLines(text.slice(0, text.lastIndexOf("\n") + 1)).filter((line) => {
    return line["type"] === type;
  });
}

/**
 * Writes `count` files to each of its folders, `rate` per second in total, every third one directly
 * under its name. Then prints that it is done.
 */
const captureProgram = `
  const { appendFileSync, renameSync, writeFileSync } = require("node:fs");
  const [root, count, rate] = process.argv.slice(2);
  const folders = ["visible", "infrared", "depth"];
  const began = performance.now();
  for (let shot = 1; shot <= Number(count) * folders.length; shot++) {
    const wait = began + (shot * 1000) / Number(rate) - performance.now();
    if (wait > 0) await Bun.sleep(wait);
    const path = root + "/" + folders[shot % 3] + "/" + shot + ".dat";
    const bytes = Buffer.alloc(20000, "frame " + shot + " ");
    if (shot % 9 < 3) {
      writeFileSync(path, bytes.subarray(0, 5000));
      appendFileSync(path, bytes.subarray(5000));
    } else {
      writeFileSync(path + ".part", bytes);
      renameSync(path + ".part", path);
    }
  }
`;

describe("frames send --watch", () => {
  test("frames send --watch sends existing files and then new ones until SIGINT", async () => {
    await withServer(async (server) => {
      const folder = newFolder("infrared");
      place(folder, "1.png");
      using sender = watch(folder, server);
      await arrived(server, 1);
      place(folder, "2.png");
      writeFileSync(join(folder, "3.png"), "in place");
      mkdirSync(join(folder, "visible/left"), { recursive: true });
      place(folder, "visible/left/1.jpg", jpeg);
      place(folder, "infrared/1.jpg", jpeg);
      await arrived(server, 5);
      const summary = await stop(sender);
      expect(summary).toMatchObject({ frames: 5, lost: 0, refused: 0, interrupted: false });
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      expect(new Set(rowsOf(server).map(({ session }) => session)).size).toBe(1);
    });
  });

  test("frames send --watch sends 120 files a second from three folders without a loss", async () => {
    await withServer(async (server) => {
      const folder = newFolder("visible", "infrared", "depth");
      using sender = watch(folder, server);
      const script = join(temporaryFolder(), "capture.ts");
      writeFileSync(script, `export {};\n${captureProgram}`);
      const capture = Bun.spawn([process.execPath, script, folder, "120", "120"], {
        env: environment(),
        stdio: ["ignore", "inherit", "inherit"],
      });
      expect(await capture.exited).toBe(0);
      await arrived(server, 360);
      const summary = await stop(sender);
      expect(summary).toMatchObject({ frames: 360, lost: 0, refused: 0, dropped: 0 });
      expect(sameTree(folder, join(server.dir, "run7"))).toEqual([]);
      // No incomplete version was sent, because it would have used a number.
      for (const name of ["visible", "infrared", "depth"]) {
        const numbers = rowsOf(server).filter(({ source }) => source === name);
        expect(numbers.map(({ seq }) => seq).sort((a, b) => a - b)).toEqual(
          Array.from({ length: 120 }, (_, index) => index + 1),
        );
      }
    });
  });

  test("frames send --watch started again sends only the files that came meanwhile", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      for (const round of [1, 2, 3]) {
        place(folder, `${round}`);
        using sender = watch(folder, server);
        await arrived(server, round);
        const summary = await stop(sender);
        expect(summary).toMatchObject({ frames: round, present: round - 1 });
      }
    });
  });

  test("--since now leaves out existing files and sends every later one, whatever its time", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      const elsewhere = temporaryFolder();
      place(folder, "before");
      for (const path of [join(folder, "before"), join(elsewhere, "old")]) {
        writeFileSync(path, "old");
        utimesSync(path, Date.now() / 1000 - 3600, Date.now() / 1000 - 3600);
      }
      using sender = watch(folder, server, "--since", "now");
      await until("a connection", () => sender.stderr().includes("Sending run7"));
      renameSync(join(elsewhere, "old"), join(folder, "old"));
      place(folder, "new");
      await arrived(server, 1);
      // Both were renamed into place, in this order.
      await until("both", () => rowsOf(server).length === 2);
      await stop(sender);
      expect(rowsOf(server).map(({ name }) => name)).toEqual(["old", "new"]);
    });
  });

  test("frames send --watch replaces its own earlier version of a file, but not the frame of another session", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      place(folder, "a", "one");
      {
        using sender = watch(folder, server);
        await until("the frame", () => stored(server, "a") === "one");
        for (const text of ["two and more", "three", "the last"]) {
          place(folder, "a", text);
          await until(text, () => stored(server, "a") === text);
        }
        appendFileSync(join(folder, "a"), " one");
        await until("the end of it", () => stored(server, "a") === "the last one");
        const summary = await stop(sender);
        expect(summary).toMatchObject({ refused: 0, lost: 0 });
      }
      expect(rowsOf(server).map(({ seq }) => seq)).toEqual([5]);
      place(folder, "a", "another session's");
      using sender = watch(folder, server);
      await until("its being refused", () => said(sender, "undelivered").length > 0);
      await stop(sender, 23);
      expect(stored(server, "a")).toBe("the last one");
    });
  });

  test("frames send --watch lists files that were removed before they were read: exit 24", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server);
      const folder = newFolder();
      using sender = watch(folder, link.to);
      place(folder, "first");
      await arrived(server, 1);
      // Nothing passes, so files wait to be read.
      link.relay.freeze();
      for (let number = 1; number <= 4; number++) {
        place(folder, `large-${number}`, new Uint8Array(8e6).fill(number));
      }
      place(folder, "gone");
      writeFileSync(join(folder, "half"), "it is not complete when it goes");
      // All changes before a new source were noticed too.
      mkdirSync(join(folder, "mark"));
      place(folder, "mark/mark");
      await until("its being noticed", () => {
        sender.child.kill("SIGUSR1");
        return said(sender, "report").some(({ name }) => name === "mark");
      });
      for (const name of ["gone", "half"]) unlinkSync(join(folder, name));
      link.relay.thaw();
      await arrived(server, 6);
      await until("both", () => said(sender, "undelivered").length === 2);
      const summary = await stop(sender, 24);
      expect(summary).toMatchObject({ frames: 6, lost: 2, reasons: { vanished: 2 } });
      const told = said(sender, "undelivered").map(({ what, error }) => `${what}: ${error}`);
      expect(told.sort()).toEqual(["gone: vanished", "half: vanished"]);
    });
  });

  test("frames send --watch stops with complete files delivered and incomplete ones listed: exit 23", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      using sender = watch(folder, server, "--settle", "3600000");
      await until("a connection", () => sender.stderr().includes("Sending run7"));
      place(folder, "whole");
      await arrived(server, 1);
      writeFileSync(join(folder, "half.jpg"), jpeg.subarray(0, 8));
      for (let number = 0; number < 500; number++) place(folder, `${number}`);
      const summary = await stop(sender, 23);
      expect(summary["reasons"]).toEqual({ stopped: expect.any(Number) });
      const undelivered = said(sender, "undelivered").map(({ what }) => String(what));
      const names = rowsOf(server).map(({ name }) => name);
      expect(undelivered).toContain("half.jpg");
      expect(names).toContain("whole");
      // Other files may have been noticed or not. None is reported as both delivered and
      // undelivered.
      expect(new Set([...names, ...undelivered]).size).toBe(names.length + undelivered.length);
    });
  });

  test("frames send --watch stops at once on a second signal, or before it is connected: exit 20", async () => {
    let connections = 0;
    const socket = { data() {}, open: () => void connections++ };
    const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket });
    try {
      for (const signals of [1, 2]) {
        const folder = newFolder();
        place(folder, "a");
        using sender = watch(folder, `127.0.0.1:${silent.port}`);
        // The server never answers.
        await until("its connection", () => connections === signals);
        for (let left = signals; left > 0; left--) sender.child.kill("SIGINT");
        expectCode(await sender.ended(), 20);
      }
    } finally {
      silent.stop(true);
    }
  });

  test("frames send --watch resumes after the server was killed and loses no file that came meanwhile", async () => {
    const dir = temporaryFolder();
    const port = freePort();
    const begin = () => startServer({ dir, args: ["--listen", `127.0.0.1:${port}`] });
    let server = await begin();
    const folder = newFolder("visible");
    using sender = watch(folder, server);
    place(folder, "visible/1");
    await arrived(server, 1);
    server.process.kill("SIGKILL");
    await server.process.exited;
    for (let number = 2; number <= 60; number++) place(folder, `visible/${number}`, `${number}`);
    place(folder, "visible/1", "another");
    mkdirSync(join(folder, "new"));
    place(folder, "new/1");
    server = await begin();
    try {
      await arrived(server, 61);
      await until("the change", () => stored(server, "visible/1") === "another");
      const summary = await stop(sender);
      expect(summary).toMatchObject({ lost: 0, refused: 0 });
      expect(sameTree(folder, join(dir, "run7"))).toEqual([]);
    } finally {
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    }
  });

  test("frames send --watch delivers a change that was under way when the connection broke", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server);
      const folder = newFolder();
      place(folder, "a", "one");
      using sender = watch(folder, link.to);
      await until("the frame", () => stored(server, "a") === "one");
      link.relay.freeze();
      place(folder, "a", "the other");
      // The frame is in flight once the report counts it as sent.
      const sent = () => {
        sender.child.kill("SIGUSR1");
        return Number(said(sender, "report").at(-1)?.["sent"]);
      };
      await until("its being sent", () => sent() === 2);
      link.relay.cut();
      link.relay.thaw();
      await until("what was on its way, or word of it", () => {
        return stored(server, "a") === "the other" || said(sender, "undelivered").length > 0;
      });
      expect(said(sender, "undelivered")).toEqual([]);
      await stop(sender);
      expect(stored(server, "a")).toBe("the other");
    });
  });

  test("frames send --watch --move removes stored files, and keeps new ones whose name is taken: exit 23", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      using sender = watch(folder, server, "--move");
      await until("a connection", () => sender.stderr().includes("Sending run7"));
      place(folder, "latest", "round 1");
      await until("its removal", () => rowsOf(server).length === 1 && !readdirSync(folder).length);
      for (const round of [2, 3]) {
        place(folder, "latest", `round ${round}`);
        await until("its being refused", () => said(sender, "kept").length === round - 1);
      }
      for (let number = 1; number <= 300; number++) place(folder, `${number}`);
      await arrived(server, 301);
      const left = () => readdirSync(folder).sort();
      await until("the removals", () => left().length === 3);
      const summary = await stop(sender, 23);
      expect(summary).toMatchObject({ removed: 301, notRemoved: 0, lost: 0, refused: 2 });
      expect(stored(server, "latest")).toBe("round 1");
      const texts = left().map((name) => readFileSync(join(folder, name), "utf8"));
      expect(texts.sort()).toEqual(["round 2", "round 3", "round 3"]);
      expect(readFileSync(join(folder, "latest"), "utf8")).toBe("round 3");
    });
  });

  test("frames send --watch --move sends an equal file of a removed name again, and removes it", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      using sender = watch(folder, server, "--move");
      await until("a connection", () => sender.stderr().includes("Sending run7"));
      for (const round of [1, 2, 3]) {
        place(folder, "same");
        place(folder, `${round}`);
        await until(
          "the removals",
          () => rowsOf(server).length > round && !readdirSync(folder).length,
        );
      }
      await stop(sender);
    });
  });

  test("frames send --watch --move waits for a writer, and delivers the whole file", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      using sender = watch(folder, server, "--move", "--settle", "100");
      await until("a connection", () => sender.stderr().includes("Sending run7"));
      const script = 'exec 3>"$0"; printf half >&3; read line; printf " and whole" >&3';
      const writer = Bun.spawn(["bash", "-c", script, join(folder, "a")], { stdin: "pipe" });
      await until("the half", () => stored(server, "a") === "half");
      writer.stdin.end();
      await writer.exited;
      await until("the whole", () => stored(server, "a") === "half and whole");
      await until("its removal", () => readdirSync(folder).length === 0);
      const summary = await stop(sender);
      expect(summary).toMatchObject({ removed: 1, notRemoved: 0, lost: 0, refused: 0 });
    });
  });

  test("frames send --watch does not replace the frame of a file that was deleted here: exit 23", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      using sender = watch(folder, server);
      place(folder, "a", "one");
      await arrived(server, 1);
      unlinkSync(join(folder, "a"));
      place(folder, "a", "another");
      await until("its being refused", () => said(sender, "undelivered").length === 1);
      await stop(sender, 23);
      expect(stored(server, "a")).toBe("one");
    });
  });

  test("frames send --watch --move delivers the last version of a file that changes while it waits", async () => {
    await withServer(async (server) => {
      using link = await relayTo(server);
      const folder = newFolder();
      using sender = watch(folder, link.to, "--move");
      await until("a connection", () => sender.stderr().includes("Sending run7"));
      place(folder, "first");
      await arrived(server, 1);
      link.relay.freeze();
      for (let number = 1; number <= 4; number++) {
        place(folder, `large-${number}`, new Uint8Array(8e6).fill(number));
      }
      for (const text of ["one", "the second", "and the third"]) {
        place(folder, "a", text);
        await Bun.sleep(60);
      }
      link.relay.thaw();
      await until("the last version", () => stored(server, "a") === "and the third");
      await until("an empty folder", () => readdirSync(folder).length === 0);
      const summary = await stop(sender);
      expect(summary).toMatchObject({ lost: 0, notRemoved: 0, refused: 0 });
    });
  });

  test("frames send --watch continues after its folder was missing for a while, and reports it", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      using sender = watch(folder, server);
      place(folder, "1");
      await arrived(server, 1);
      renameSync(folder, `${folder}-away`);
      await until("a word of it", () => said(sender, "retry").length > 0);
      renameSync(`${folder}-away`, folder);
      place(folder, "2");
      await arrived(server, 2);
      await stop(sender);
      expect(sender.stderr()).not.toContain("Error");
    });
  });

  test("frames send --watch follows a link that is its argument, but no link in a folder", async () => {
    await withServer(async (server) => {
      const folder = newFolder("visible");
      const link = join(temporaryFolder(), "run7");
      symlinkSync(folder, link);
      using sender = watch(link, server);
      place(folder, "visible/1");
      symlinkSync("/etc/hostname", join(folder, "visible/2"));
      await arrived(server, 1);
      await until("word of the other", () => said(sender, "skipped").length === 1);
      await stop(sender);
      expect(rowsOf(server).length).toBe(1);
    });
  });

  test("--fps limits the rate of watched folders too", async () => {
    await withServer(async (server) => {
      const folder = newFolder();
      using sender = watch(folder, server, "--fps", "8");
      for (let number = 1; number <= 9; number++) place(folder, `${number}`);
      await arrived(server, 9);
      await stop(sender);
      const query = "SELECT received FROM frames ORDER BY id";
      const times = journal<{ received: number }>(server.dir, query).map((row) => row.received);
      // Eight pauses of an eighth of a second, of which the first few may be caught up.
      expect((times.at(-1)! - times[0]!) / 1e9).toBeGreaterThan(0.6);
    });
  });

  test("frames send --watch refuses two folders that would be the same source, as does a plain send", async () => {
    const [first, second] = [newFolder(), newFolder()];
    for (const folder of [first, second]) place(folder, "a");
    const paths = ["send", first, second, "--stream", "s"];
    for (const more of [[], ["--watch"]]) {
      const sent = await run([...paths, ...more, "--to", "127.0.0.1:9"]);
      expectCode(sent, 1);
      expect(sent.stderr).toContain("both are the source run7");
    }
  });
});
