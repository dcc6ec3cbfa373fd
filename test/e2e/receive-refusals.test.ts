// What `frames receive` refuses: before it has written a byte, and with nothing left behind.

import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { expectCode, withServer } from "../helper/delivery.ts";
import {
  executable,
  freePort,
  launch,
  makeTree,
  peerMissing,
  run,
  sameTree,
  type Server,
  temporaryFolder,
} from "../helper/program.ts";
import { until } from "../helper/time.ts";

const from = ({ port }: { port: number }) => ["--from", `127.0.0.1:${port}`];
const tree = { "a/1.txt": "one", "a/2.txt": "two", "b/1.txt": "three" };

async function send(server: Server, path: string): Promise<void> {
  expectCode(await run(["send", path, "--to", `127.0.0.1:${server.port}`]), 0);
}

describe("frames receive leaves nothing behind", () => {
  /** Runs a failing command in an empty folder, and returns its status. */
  async function fails(words: string[], env: Record<string, string> = {}): Promise<number> {
    const cwd = temporaryFolder();
    const { code } = await run(["receive", ...words], { cwd, env });
    expect([words, readdirSync(cwd)]).toEqual([words, []]);
    return code;
  }

  test("if there is no server, no such host or no key", async () => {
    const nobody = `127.0.0.1:${freePort()}`;
    for (const words of [["S"], ["S", "copy"], ["S", "deep/er/copy"], ["S", "copy", "--latest"]]) {
      expect(await fails([...words, "--from", nobody])).toBe(10);
    }
    expect(await fails(["S", "--from", "no-such-host.invalid", "--insecure"])).toBe(10);
    expect(await fails(["S", "copy", "--from", "192.0.2.1"], { HOME: temporaryFolder() })).toBe(5);
  });

  test("if the stream or a source does not exist, or the key is not for it", async () => {
    await withServer(async (server) => {
      await send(server, makeTree(tree));
      for (const words of [["other"], ["other", "deep/copy"], ["run7", "--source", "c"]]) {
        expect(await fails([...words, ...from(server)])).toBe(1);
      }
      expect(await fails(["run7", "--source", "a", "--source", "c", ...from(server)])).toBe(1);
    });
    const keys = join(temporaryFolder(), "keys");
    const limited = ["key", "new", "cam", "--streams", "cam-*", "--key-file", keys];
    expectCode(await run(limited), 0);
    await withServer(
      async (server) => {
        expect(await fails(["run7", "--key-file", keys, ...from(server)])).toBe(5);
        expect(await fails(["cam-1", "--key-file", keys, ...from(server)])).toBe(1);
      },
      "--key-file",
      keys,
    );
  });

  test("if it follows a stream of which nothing comes", async () => {
    await withServer(async (server) => {
      const copy = join(temporaryFolder(), "copy");
      using receiver = launch(["receive", "run7", copy, "--follow", ...from(server)]);
      await until("the connection", () => receiver.stderr().includes("Receiving run7"));
      receiver.child.kill("SIGINT");
      expectCode(await receiver.ended(), 0);
      expect(existsSync(copy)).toBe(false);
    });
  });

  test("and a stream that is followed from before its first frame is stored whole", async () => {
    await withServer(async (server) => {
      const copy = join(temporaryFolder(), "copy");
      using receiver = launch(["receive", "run7", copy, "--follow", ...from(server)]);
      await until("the connection", () => receiver.stderr().includes("Receiving run7"));
      const sent = makeTree(tree);
      await send(server, sent);
      await until("the frames", () => existsSync(join(copy, "b/1.txt")));
      receiver.child.kill("SIGINT");
      expectCode(await receiver.ended(), 0);
      expectCode(await run(["receive", "run7", copy, ...from(server)]), 0);
      expect(sameTree(sent, copy)).toEqual([]);
    });
  });

  test("and a copy that exists is kept when the server is away", async () => {
    const copy = join(temporaryFolder(), "copy");
    const sent = makeTree(tree);
    let port = 0;
    await withServer(async (server) => {
      port = server.port;
      await send(server, sent);
      expectCode(await run(["receive", "run7", copy, ...from(server)]), 0);
    });
    expectCode(await run(["receive", "run7", copy, ...from({ port })]), 10);
    expect(sameTree(sent, copy)).toEqual([]);
  });

  test("a place that cannot be written ends it at once: exit 11", async () => {
    await withServer(async (server) => {
      await send(server, makeTree(tree));
      const file = join(temporaryFolder(), "file");
      writeFileSync(file, "");
      for (const place of [join(file, "copy"), file]) {
        const received = await run(["receive", "run7", place, ...from(server)]);
        expectCode(received, 11);
        expect(received.stderr).toContain(`Cannot write the store ${place}`);
      }
      const store = temporaryFolder();
      mkdirSync(join(store, "run9"));
      writeFileSync(join(store, "run9/1.png"), "1");
      expectCode(await run(["receive", "run7", join(store, "run9"), ...from(server)]), 0);
    });
  });
});

describe("frames receive STREAM -", () => {
  test("refuses a stream of two sources before it writes a frame", async () => {
    await withServer(async (server) => {
      await send(server, makeTree(tree));
      for (const more of [[], ["--follow"], ["--latest"], ["--first", "2"], ["--since", "1h"]]) {
        const received = await run(["receive", "run7", "-", ...more, ...from(server)]);
        expect([more, received.code, received.stdout]).toEqual([more, 1, ""]);
        expect(received.stderr).toContain("Cannot write a and b to one pipe");
      }
      const both = ["--source", "b", "--source", "a"];
      const named = await run(["receive", "run7", "-", ...both, ...from(server)]);
      expect([named.code, named.stdout]).toEqual([1, ""]);
      const one = await run(["receive", "run7", "-", "--first", "1", ...from(server)]);
      expect([one.code, one.stdout]).toEqual([0, "one"]);
      const parts = await run(["receive", "run7", "-", "--multipart", ...from(server)]);
      expect([parts.code, parts.stdout.split("--frame").length]).toEqual([0, 4]);
    });
  });

  test("takes a stream of two sources if only one has frames since the time", async () => {
    await withServer(async (server) => {
      const old = makeTree({ "a/1.txt": "old" });
      expectCode(
        await run(["touch", "-d", "2020-01-01", join(old, "a/1.txt")], { command: [] }),
        0,
      );
      await send(server, old);
      await send(server, makeTree({ "b/1.txt": "new" }));
      const received = await run(["receive", "run7", "-", "--since", "1h", ...from(server)]);
      expect([received.code, received.stdout]).toEqual([0, "new"]);
    });
  });

  test.skipIf(peerMissing("python3"))(
    "refuses to write binary frames to a terminal: exit 1",
    async () => {
      await withServer(async (server) => {
        await send(server, makeTree({ "a/1.txt": "binary" }));
        const script =
          "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        for (const more of [[], ["--multipart"]]) {
          const words = [executable, "receive", "run7", "-", ...more, ...from(server)];
          const shown = await run(["-c", script, ...words], { command: ["python3"] });
          expect([shown.code, shown.stdout.includes("binary\r")]).toEqual([1, false]);
          expect(shown.stdout).toContain("Cannot write frames to a terminal");
        }
      });
    },
  );
});
