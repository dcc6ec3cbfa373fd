/**
 * Compares `frames receive` with `frames send` of the same frames, in turn. The received tree must
 * equal the sent tree.
 */
import { mkdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { executable, sameTree } from "../helper/program.ts";
import type { Bench } from "./compare.ts";
import { type Corpus, makeCorpus } from "./corpora.ts";
import { deliver, median, spread, startReceiving, timed } from "./measure.ts";

/** Durations of a round in seconds. */
interface Round {
  readonly send: number;
  readonly receive: number;
}

/** Measures the speed of `frames receive` relative to `frames send`. */
export async function received(bench: Bench, corpus: Corpus): Promise<void> {
  const { folder, rounds, warmUps, report } = bench;
  const from = makeCorpus(folder, corpus);
  const stream = basename(from);
  const taken: Round[] = [];
  for (let round = -warmUps; round < rounds; round++) {
    const [store, copy] = [join(folder, "store"), join(folder, "copy")];
    mkdirSync(store);
    const server = await startReceiving(store);
    const { seconds: send } = await deliver(from, server);
    const address = `127.0.0.1:${server.port}`;
    const command = [executable, "receive", stream, copy, "--from", address, "--quiet"];
    const { seconds: receive } = await timed(command);
    await server.stop();
    const differences = sameTree(from, copy);
    if (differences.length > 0) {
      throw new Error(`frames receive did not bring all: ${differences.slice(0, 3).join("; ")}`);
    }
    for (const path of [store, copy]) rmSync(path, { recursive: true });
    if (round >= 0) taken.push({ send, receive });
  }
  rmSync(from, { recursive: true });
  const { name, frames, bytes } = corpus;
  const rate = (seconds: number) => `${Math.round((frames * bytes) / seconds / 1e6)} MB/s`;
  const send = median(taken.map((one) => one.send));
  const receive = median(taken.map((one) => one.receive));
  const ratios = taken.map((one) => one.send / one.receive);
  const speeds = `send ${rate(send)}, receive ${rate(receive)}`;
  report.row(`${name.padEnd(16)} ${speeds}: ${spread(ratios)} of the speed of send`, {
    part: "receive",
    corpus: name,
    send,
    receive,
    ratio: median(ratios),
    ratios,
  });
}
