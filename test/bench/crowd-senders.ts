// Several senders in a single process: bun crowd-senders.ts PORT FIRST COUNT SECONDS

import { send } from "../../src/mod.ts";

/** Result printed as JSON. */
export interface CrowdResult {
  /** Milliseconds from yielding each frame to its receipt. */
  readonly waits: readonly number[];
  /** Largest delay in milliseconds between a frame's due time and the request for it. */
  readonly latest: number;
  /** Number of reconnects. */
  readonly retries: number;
}

const framesEachSecond = 5;

async function main(port: number, first: number, count: number, seconds: number) {
  const waits: number[] = [];
  let latest = 0;
  let retries = 0;
  const one = async (index: number): Promise<void> => {
    const frame = crypto.getRandomValues(new Uint8Array(20_000));
    const captured: number[] = [];
    let confirmed = 0;
    // Senders start at different times, as cameras do.
    const begin = performance.now() + Math.random() * 1000;
    async function* camera() {
      for (let shot = 0; shot < seconds * framesEachSecond; shot++) {
        const due = begin + (shot * 1000) / framesEachSecond;
        await Bun.sleep(Math.max(0, due - performance.now()));
        // Copies the frame, because its bytes must not change before the server has received them.
        const bytes = frame.slice();
        const mark = new DataView(bytes.buffer);
        mark.setUint32(0, index);
        mark.setUint32(4, shot);
        const now = performance.now();
        latest = Math.max(latest, now - due);
        captured.push(now);
        yield { bytes };
      }
    }
    const summary = await send(camera(), {
      to: `127.0.0.1:${port}`,
      stream: "crowd",
      source: `camera-${index}`,
      onMessage(direction, line) {
        if (direction !== "<-" || !line.startsWith("RECEIPT ")) return;
        for (const count = Number(line.slice(8)); confirmed < count; confirmed++) {
          waits.push(performance.now() - captured[confirmed]!);
        }
      },
    });
    retries += summary.retries;
    if (summary.frames !== seconds * framesEachSecond)
      throw new Error(`camera-${index} lacks frames`);
  };
  await Promise.all(Array.from({ length: count }, (_, index) => one(first + index)));
  const rounded = waits.map((wait) => Math.round(wait * 10) / 10);
  const result: CrowdResult = { waits: rounded, latest, retries };
  console.log(JSON.stringify(result));
}

if (import.meta.main) {
  const [port, first, count, seconds] = process.argv.slice(2).map(Number);
  await main(port!, first!, count!, seconds!);
}
