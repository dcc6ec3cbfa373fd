// Senders of the crowd that share a process: bun crowd-senders.ts PORT FIRST COUNT SECONDS

import { send } from "../../src/mod.ts";

/** What they print, as JSON. */
export interface CrowdResult {
  /** Milliseconds from a frame's capture to its receipt. */
  readonly longestWait: number;
}

const framesEachSecond = 5;

async function main(port: number, first: number, count: number, seconds: number) {
  let longestWait = 0;
  const one = async (index: number): Promise<void> => {
    const frame = crypto.getRandomValues(new Uint8Array(20_000));
    const captured: number[] = [];
    let confirmed = 0;
    // They do not all begin in the same moment, as no cameras do.
    const begin = performance.now() + Math.random() * 1000;
    async function* camera() {
      for (let shot = 0; shot < seconds * framesEachSecond; shot++) {
        const due = begin + (shot * 1000) / framesEachSecond;
        await Bun.sleep(Math.max(0, due - performance.now()));
        captured.push(performance.now());
        yield { bytes: frame };
      }
    }
    const summary = await send(camera(), {
      to: `127.0.0.1:${port}`,
      stream: "crowd",
      source: `camera-${index}`,
      onMessage(direction, line) {
        if (direction !== "<-" || !line.startsWith("RECEIPT ")) return;
        for (const count = Number(line.slice(8)); confirmed < count; confirmed++) {
          longestWait = Math.max(longestWait, performance.now() - captured[confirmed]!);
        }
      },
    });
    if (summary.frames !== captured.length) throw new Error(`camera-${index} lacks frames`);
  };
  await Promise.all(Array.from({ length: count }, (_, index) => one(first + index)));
  const result: CrowdResult = { longestWait };
  console.log(JSON.stringify(result));
}

if (import.meta.main) {
  const [port, first, count, seconds] = process.argv.slice(2).map(Number);
  await main(port!, first!, count!, seconds!);
}
