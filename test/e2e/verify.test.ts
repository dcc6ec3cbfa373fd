// `frames verify` on stores made by a real server.
//
// Covers: cli/verify.ts, store/verify/rebuild-journal.ts

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
  closeSync,
} from "node:fs";
import { join } from "node:path";
import {
  launch,
  run,
  sameTree,
  startServer,
  temporaryFolder,
  type Server,
} from "../helper/program.ts";

interface Finding {
  type: string;
  kind: string;
  what: string;
  why: string;
}

/** Creates a capture of two sources and a store with it. */
async function delivered(): Promise<{ capture: string; store: string; server: Server }> {
  const folder = temporaryFolder();
  const capture = join(folder, "run7");
  for (const source of ["visible", "infrared"]) {
    mkdirSync(join(capture, source), { recursive: true });
    for (let number = 1; number <= 20; number++) {
      writeFileSync(join(capture, source, `${number}.png`), `${source} ${number}`.repeat(100));
    }
  }
  writeFileSync(join(capture, "visible", "large.raw"), new Uint8Array(3_000_000).fill(7));
  const store = join(folder, "store");
  const server = await startServer({ dir: store });
  await send(capture, server);
  return { capture, store, server };
}

async function send(capture: string, server: Server, ...flags: string[]): Promise<void> {
  const sent = await run(["send", capture, "--to", `127.0.0.1:${server.port}`, ...flags]);
  expect(sent.stderr).not.toContain("Not delivered");
  expect(sent.code).toBe(0);
}

/** Runs `frames verify --json`. Returns exit status, findings and summary. */
async function verify(store: string, ...flags: string[]) {
  const { code, stdout, stderr } = await run(["verify", store, "--json", ...flags]);
  const lines = stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Finding & Record<string, number>);
  const findings = lines.filter(({ type }) => type === "finding");
  const summary = lines.find(({ type }) => type === "summary");
  return {
    code,
    stderr,
    summary,
    findings: findings.map(({ kind, what }) => `${kind} ${what}`).sort(),
  };
}

/** Findings for a journal that was rebuilt from the files of `delivered` alone. */
const uncheckedFindings = [
  "unchecked run7/infrared, 20 frames",
  "unchecked run7/visible, 21 frames",
];

/** Sends again. The server finds all frames by their checksums, and nothing is unchecked then. */
async function expectFoundAndChecked(capture: string, store: string): Promise<void> {
  const again = await startServer({ dir: store });
  await send(capture, again);
  expect(await again.stop()).toBe(0);
  expect(again.stdout()).toContain('"found":41');
  expect(await verify(store)).toMatchObject({ code: 0, findings: [] });
}

function overwriteByte(path: string): void {
  const file = openSync(path, "r+");
  writeSync(file, "Q", 10);
  closeSync(file);
}

test("frames verify finds no fault in a store while it is served and afterwards", async () => {
  const { store, server } = await delivered();
  const beside = await verify(store);
  expect(beside).toMatchObject({ code: 0, findings: [] });
  expect(beside.summary).toMatchObject({ frames: 41, total: 41, missing: 0, damaged: 0 });
  await server.stop();
  expect(await verify(store)).toMatchObject({ code: 0, findings: [] });
});

test("frames verify names frames that are missing, damaged, unknown or lost: exit 23", async () => {
  const { store, server } = await delivered();
  await server.stop();
  const at = (path: string) => join(store, "run7", path);
  rmSync(at("visible/1.png"));
  appendFileSync(at("visible/2.png"), "!");
  overwriteByte(at("infrared/3.png"));
  overwriteByte(at("visible/large.raw"));
  // Neither a changed time nor a file that cannot be a frame is an error.
  utimesSync(at("infrared/4.png"), 0, 0);
  writeFileSync(at("infrared/.hidden"), "");
  writeFileSync(at("infrared/5.png.part"), "");
  writeFileSync(at("infrared/other.txt"), "");
  const journal = new Database(join(store, ".frames/journal.sqlite"));
  journal.run(
    "INSERT INTO losses (stream, source, session, first, last, reason, at) VALUES ('run7', 'visible', '', 50, 52, 'vanished', 0)",
  );
  journal.close();

  const found = await verify(store);
  expect(found.code).toBe(23);
  expect(found.findings.sort()).toEqual([
    "damaged run7/infrared/3.png",
    "damaged run7/visible/2.png",
    "damaged run7/visible/large.raw",
    "lost run7/visible, numbers 50 to 52",
    "missing run7/visible/1.png",
    "unknown run7/infrared/other.txt",
  ]);
  expect(found.summary).toMatchObject({ missing: 1, damaged: 3, unknown: 1, lost: 1 });

  const lenient = await verify(store, "--ignore-missing");
  expect(lenient.findings).toHaveLength(5);
  // The output for people agrees.
  const { stdout, code } = await run(["verify", store]);
  expect(code).toBe(23);
  expect(stdout).toContain(
    "damaged  run7/infrared/3.png: its bytes changed after they were stored\n",
  );
  expect(stdout).toContain("missing  run7/visible/1.png: ");
});

test("frames verify --repair sets damaged frames aside, and the next send brings them", async () => {
  const { capture, store, server } = await delivered();
  await server.stop();
  overwriteByte(join(store, "run7/visible/7.png"));
  const repaired = await verify(store, "--repair");
  expect(repaired).toMatchObject({ code: 23, findings: ["damaged run7/visible/7.png"] });
  expect(existsSync(join(store, "run7/visible/7.png"))).toBe(false);
  expect(readFileSync(join(store, ".frames/damaged/run7/visible/7.png"), "utf8")[10]).toBe("Q");
  expect(await verify(store)).toMatchObject({ code: 0, findings: [] });

  const again = await startServer({ dir: store });
  await send(capture, again);
  await again.stop();
  expect(sameTree(capture, join(store, "run7"))).toEqual([]);
  // A second damaged frame of the same name does not overwrite the first.
  overwriteByte(join(store, "run7/visible/7.png"));
  await verify(store, "--repair");
  expect(readdirSync(join(store, ".frames/damaged/run7/visible")).sort()).toEqual([
    "7.png",
    "7.png.1",
  ]);
});

test("a frame that is too large for the server is one loss with its name, and none once it came", async () => {
  const folder = temporaryFolder();
  const capture = join(folder, "run7");
  mkdirSync(join(capture, "visible"), { recursive: true });
  writeFileSync(join(capture, "visible/small.raw"), "small");
  writeFileSync(join(capture, "visible/large.raw"), new Uint8Array(50_000));
  const store = join(folder, "store");
  const deliver = async (...flags: string[]) => {
    const server = await startServer({ dir: store, args: flags });
    const { code } = await run(["send", capture, "--to", `127.0.0.1:${server.port}`]);
    await server.stop();
    return code;
  };
  for (let time = 0; time < 3; time++) expect(await deliver("--max-frame", "10K")).toBe(23);
  const lost = await verify(store);
  expect(lost).toMatchObject({ code: 23, findings: ["lost run7/visible/large.raw, number 1"] });
  const { stdout, stderr } = await run(["verify", store]);
  expect(stdout + stderr).toContain("Every stored frame is right: 1 frame, 5 bytes");
  expect(await deliver()).toBe(0);
  const came = await verify(store);
  expect(came).toMatchObject({ code: 0, findings: [], summary: { lost: 0, cameLater: 1 } });
  expect(came.stderr).toContain("Everything is right");
});

test.skipIf(process.platform === "win32")(
  "a frame with an unusable name is one loss however often it is sent, and can be accepted",
  async () => {
    const { capture, store, server } = await delivered();
    writeFileSync(join(capture, "visible/back\\slash.png"), "x");
    for (let time = 0; time < 3; time++) {
      expect((await run(["send", capture, "--to", `127.0.0.1:${server.port}`])).code).toBe(23);
    }
    const name = "run7/visible/back\\slash.png";
    const [finding, ...more] = (await verify(store)).findings;
    expect(finding).toStartWith(`lost ${name}, number `);
    expect(more).toEqual([]);
    // The server may be writing the journal.
    expect((await run(["verify", store, "--accept"])).code).toBe(11);
    await server.stop();
    const accepted = await run(["verify", store, "--accept"]);
    expect(accepted.code).toBe(0);
    expect(accepted.stdout).toContain(`lost     ${name}`);
    expect(await verify(store)).toMatchObject({ code: 0, findings: [], summary: { accepted: 1 } });
  },
);

test("frames verify --repair refuses a store that is served, and names the process: exit 11", async () => {
  const { store, server } = await delivered();
  const refused = await run(["verify", store, "--repair"]);
  expect(refused.code).toBe(11);
  expect(refused.stderr).toContain(`process ${server.process.pid}`);
  await server.stop();
});

test("a server refuses to start on a malformed journal, and verify --repair makes a new one", async () => {
  const { capture, store, server } = await delivered();
  await server.stop();
  const path = join(store, ".frames/journal.sqlite");
  const journal = readFileSync(path);
  journal.fill(0x5a, 200);
  writeFileSync(path, journal);

  const started = await run(["serve", store, "--listen", "127.0.0.1:0"]);
  expect(started.code).toBe(11);
  expect(started.stderr).toContain("verify DIR --repair");
  const looked = await run(["verify", store]);
  expect(looked.code).toBe(11);
  expect(looked.stderr).toContain("--repair to make a new one");

  const repaired = await verify(store, "--repair");
  expect(repaired).toMatchObject({ code: 23, findings: uncheckedFindings });
  expect(repaired.summary).toMatchObject({ frames: 41, rebuilt: 41, unchecked: 41 });
  expect(readdirSync(join(store, ".frames/damaged"))[0]).toStartWith("journal-");
  await expectFoundAndChecked(capture, store);
});

test.skipIf(process.platform === "win32")(
  "frames verify --repair makes a new journal in spite of pipes, sockets and a folder named like its stream",
  async () => {
    const { store, server } = await delivered();
    await server.stop();
    const at = (path: string) => join(store, "run7", path);
    expect(spawnSync("mkfifo", [at("visible/pipe.png")]).status).toBe(0);
    using socket = Bun.listen({ unix: at("visible/socket.png"), socket: { data() {} } });
    mkdirSync(at("run7/below"), { recursive: true });
    writeFileSync(at("run7/1.png"), "no frame of any source");
    writeFileSync(at("run7/below/2.png"), "one of run7/below");
    writeFileSync(join(store, ".frames/journal.sqlite"), "no journal at all ".repeat(100));

    using repairing = launch(["verify", store, "--repair", "--json"]);
    const { code, stdout } = await repairing.ended();
    expect([code, socket.unix]).toEqual([23, at("visible/socket.png")]);
    expect(stdout).toContain('"rebuilt":42');
    const journal = new Database(join(store, ".frames/journal.sqlite"), { readonly: true });
    const sources = journal.query("SELECT DISTINCT source FROM frames ORDER BY source").values();
    journal.close();
    expect(sources.flat()).toEqual(["infrared", "run7/below", "visible"]);
    // Frames whose sender is gone are accepted as they are.
    const accepted = await run(["verify", store, "--accept"]);
    expect(accepted.code).toBe(0);
    expect(accepted.stdout).toContain("unchecked  run7/visible, 21 frames: ");
    expect(await verify(store)).toMatchObject({ code: 0, findings: [] });
  },
);

for (const [what, harm] of [
  ["was emptied", (path: string) => writeFileSync(path, "")],
  ["is gone", (path: string) => rmSync(path)],
] as const) {
  test(`frames verify reports a journal that ${what}, and --repair makes a new one`, async () => {
    const { capture, store, server } = await delivered();
    await server.stop();
    const path = join(store, ".frames/journal.sqlite");
    for (const ending of ["-wal", "-shm"]) rmSync(path + ending, { force: true });
    harm(path);
    const looked = await run(["verify", store]);
    expect([looked.code, looked.stderr]).toEqual([
      11,
      `frames: Cannot verify ${store}: its journal is damaged or missing; run frames verify ${store} --repair to make a new one\n`,
    ]);
    // Checking created no file.
    expect(existsSync(path) ? readFileSync(path).length : 0).toBe(0);
    const repaired = await verify(store, "--repair");
    expect(repaired).toMatchObject({ code: 23, findings: uncheckedFindings });
    expect(repaired.summary).toMatchObject({ frames: 41, rebuilt: 41, unchecked: 41 });
    await expectFoundAndChecked(capture, store);
  });
}

test("frames verify --repair keeps the sessions of journal rows that are still readable", async () => {
  const { store, server } = await delivered();
  await server.stop();
  const path = join(store, ".frames/journal.sqlite");
  const before = new Database(path, { readonly: true });
  const sessions = before.query("SELECT DISTINCT session FROM frames").values().flat();
  before.close();
  // Destroys the index but not the table.
  const journal = readFileSync(path);
  const pageSize = journal.readUInt16BE(16);
  const database = new Database(path);
  const [[page]] = database
    .query("SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'frames'")
    .values() as [[number]];
  database.close();
  journal.fill(0xff, (page - 1) * pageSize, page * pageSize);
  writeFileSync(path, journal);

  expect(await verify(store, "--repair")).toMatchObject({ code: 0, findings: [] });
  const after = new Database(path, { readonly: true });
  expect(after.query("SELECT DISTINCT session FROM frames").values().flat()).toEqual(sessions);
  after.close();
});

test("frames verify reports a directory without a store, a missing directory and a second directory: exit 1", async () => {
  const empty = temporaryFolder();
  const none = await run(["verify", empty]);
  expect([none.code, none.stderr]).toEqual([
    1,
    `frames: Cannot verify ${empty}: it is not a store of frames; name the store, as in frames verify DIR\n`,
  ]);
  const gone = await run(["verify", join(empty, "gone")]);
  expect(gone.stderr).toContain("no such directory");
  expect((await run(["verify", empty, empty])).code).toBe(1);
});
