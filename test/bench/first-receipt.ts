/** Measures how long a sender waits for its first receipt: alone, and beside fifteen others. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { executable } from "../helper/program.ts";
import type { Bench } from "./compare.ts";
import { type Corpus, makeCorpus } from "./corpora.ts";
import { median, start, startReceiving } from "./measure.ts";

/** Milliseconds until the first receipt. */
interface Wait {
  /** From the start of the process. */
  readonly fromStart: number;
  /** From the first frame sent. */
  readonly fromFrame: number;
}

/** @param corpus frames of all senders together */
export async function firstReceipt(bench: Bench, corpus: Corpus): Promise<void> {
  bench.report.heading(`Milliseconds to the first receipt, each sender a 16th of ${corpus.name}`);
  const share = { ...corpus, frames: Math.ceil(corpus.frames / 16) };
  const folders = Array.from({ length: 16 }, (_, index) => {
    return makeCorpus(bench.folder, share, `-${index + 1}`);
  });
  const alone: Wait[] = [];
  const longest: Wait[] = [];
  for (let round = 0; round < bench.rounds; round++) {
    alone.push(...(await waits(bench, folders.slice(0, 1))));
    const all = await waits(bench, folders);
    longest.push({
      fromStart: Math.max(...all.map(({ fromStart }) => fromStart)),
      fromFrame: Math.max(...all.map(({ fromFrame }) => fromFrame)),
    });
  }
  for (const folder of folders) rmSync(folder, { recursive: true });
  for (const from of ["fromStart", "fromFrame"] as const) {
    const [one, most] = [alone, longest].map((list) => median(list.map((wait) => wait[from])));
    const since = from === "fromStart" ? "from its start" : "from its first frame";
    bench.report.row(
      `${since.padEnd(20)} one alone ${one!.toFixed(0)}, the longest of 16 ${most!.toFixed(0)}: ${(most! / one!).toFixed(1)} times`,
      { part: "first", corpus: corpus.name, from, one, most },
    );
  }
}

/** Starts a sender for each folder, all at once. */
async function waits(bench: Bench, folders: readonly string[]): Promise<Wait[]> {
  const to = join(bench.folder, "to");
  const server = await startReceiving(to);
  const address = `127.0.0.1:${server.port}`;
  const taken = await Promise.all(
    folders.map(async (folder): Promise<Wait> => {
      const began = performance.now();
      const command = [executable, "send", folder, "-v", "--to", address];
      const child = start(["sh", "-c", 'exec "$0" "$@" 2>&1', ...command]);
      let firstFrame: number | undefined;
      let firstReceipt: number | undefined;
      let text = "";
      for await (const chunk of child.stdout) {
        const now = performance.now();
        text += Buffer.from(chunk).toString("latin1");
        if (/^-> FRAME /m.test(text)) firstFrame ??= now;
        if (/^<- RECEIPT /m.test(text)) firstReceipt ??= now;
        text = text.slice(text.lastIndexOf("\n") + 1);
      }
      if (firstFrame === undefined || firstReceipt === undefined) {
        throw new Error(`${folder}: no receipt came`);
      }
      return { fromStart: firstReceipt - began, fromFrame: firstReceipt - firstFrame };
    }),
  );
  await server.stop();
  rmSync(to, { recursive: true });
  return taken;
}
