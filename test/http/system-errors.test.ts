// Every call of the file system and of SQLite that an answer over HTTP needs fails once with every
// error.
//
// Covers: store/journal/journal-reader.ts

import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { WorkQueue } from "../../src/common/work-queue.ts";
import { FramesError } from "../../src/errors.ts";
import { fullAccess } from "../../src/http/auth/access.ts";
import { HttpContext } from "../../src/http/context.ts";
import { LiveSources } from "../../src/http/live/live-sources.ts";
import type { RouteRequest } from "../../src/http/routes/request.ts";
import { toErrorResponse } from "../../src/http/responses.ts";
import { frameResponse } from "../../src/http/routes/frame.ts";
import { route } from "../../src/http/routes/routes.ts";
import { StreamClients } from "../../src/http/stream-clients.ts";
import { temporaryFolder } from "../helper/program.ts";
import { faultOf, forEachFault, SystemFaults } from "../helper/system-faults.ts";
import { bytesOf } from "../store/contract.ts";
import { openStore, openVisible, putAll } from "../store/fixture.ts";

const frame = "/streams/run7/sources/visible";
const paths = [
  "/readyz",
  "/metrics",
  "/api/server",
  "/api/streams",
  "/api/streams/run7",
  "/api/streams/run7/frames?source=visible",
  "/api/streams/run7/frames?source=visible&after=0_0_0",
  "/api/streams/run7/frames?source=visible&before=9_9_9",
  "/api/streams/run7/frames?source=visible&number=2",
  "/api/streams/run7/moment?at=5",
  "/api/streams/run7/gaps",
  `${frame}/latest`,
  `${frame}/frames/1`,
  `${frame}/numbers/2`,
];

function requestOf(path: string, context: HttpContext): RouteRequest {
  const url = new URL(path, "http://127.0.0.1");
  return {
    context,
    request: new Request(url),
    url,
    principal: fullAccess,
    clients: new StreamClients(),
    run: async (act) => act(),
    setIdleTimeout: () => {},
    upgrade: () => false,
  };
}

/** A store with two frames and a loss, and what HTTP needs of it. */
class Fixture {
  readonly directory: string = temporaryFolder();
  readonly store = openStore(this.directory);
  readonly #liveSources = new LiveSources();
  readonly errors: unknown[] = [];
  #context: HttpContext | undefined;

  async prepare(): Promise<void> {
    const source = openVisible(this.store);
    await putAll(this.store, source, [
      ["1", bytesOf(300, 1), { sequence: 1 }],
      ["2", bytesOf(300, 2), { sequence: 2 }],
    ]);
    source.recordLoss(7, 7, new FramesError("dropped"));
    await this.store.flush();
  }

  openContext(): void {
    const { contents } = this.store;
    this.#context ??= new HttpContext({
      server: { connections: 0, refusals: new Map(), workQueue: new WorkQueue() },
      liveSources: this.#liveSources,
      contents,
      storeError: () => undefined,
      createConverterWorker: () => {
        throw new Error("nothing is converted here");
      },
    });
  }

  /** Returns the status of the answer to a request, as the HTTP server gives it. */
  async get(path: string): Promise<number> {
    try {
      this.openContext();
      const response = await route(requestOf(path, this.#context!));
      await response?.body?.cancel();
      return response!.status;
    } catch (error) {
      this.errors.push(error);
      return toErrorResponse(error).status;
    }
  }

  close(): void {
    this.#context?.close();
    this.#liveSources.close();
    this.store.close();
    rmSync(this.directory, { recursive: true });
  }
}

for (const path of paths) {
  test(`${path} is answered with an error of the table when a call fails, and as usual afterwards`, async () => {
    using faults = new SystemFaults();
    const runs = await forEachFault(faults, async (fault) => {
      const fixture = new Fixture();
      await fixture.prepare();
      const status = await faults.within(() => fixture.get(path));
      const problems = fixture.errors.map(faultOf).filter((problem) => problem !== undefined);
      const isExpected = [200, 500, 503].includes(status);
      const again = await fixture.get(path);
      fixture.close();
      expect([fault, ...problems, isExpected, again]).toEqual([fault, true, 200]);
    });
    expect(runs).toBeGreaterThan(path === "/readyz" ? 5 : 2);
  });
}

test("a frame whose file cannot be read is not told as moved away", async () => {
  const file = { name: "1", sequence: 1, captured: 0n, size: 3 };
  const served = { stream: "run7", source: "visible", frame: file, crc32: 0, raw: undefined };
  const answer = async (code: string): Promise<[code: string, message: string]> => {
    const bytes = () => Promise.reject(Object.assign(new Error(`${code}: read`), { code }));
    const contents = { blob: () => ({ bytes }) as unknown as Blob };
    try {
      await frameResponse(requestOf("/", { contents } as never), served);
      return ["none", ""];
    } catch (error) {
      return [(error as FramesError).code, (error as FramesError).message];
    }
  };
  expect((await answer("ENOENT"))[0]).toBe("missing");
  const message = 'Cannot read the file of frame "1" of visible';
  expect(await answer("EIO")).toEqual(["unreadable", `${message}: input/output error`]);
  expect(await answer("EMFILE")).toEqual(["store", `${message}: too many open files`]);
});
