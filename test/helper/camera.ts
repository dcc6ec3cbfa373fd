// Simulates a camera: writes frames into the pipe of a running `frames send -`.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { environment, executable, temporaryFolder } from "./program.ts";
import { within } from "./time.ts";

/** Returns a PGM of about `size` bytes whose content depends on `number`. */
export function pgm(number: number, size = 100): Uint8Array {
  const width = Math.max(16, size - 20);
  const picture = Buffer.alloc(width, number % 251);
  picture.write(`frame ${number}`, "latin1");
  return Buffer.concat([Buffer.from(`P5 ${width} 1 255\n`, "latin1"), picture]);
}

/** Returns the number that a PGM was made with. */
export function numberOf(bytes: Uint8Array): number {
  return Number(/frame (\d+)/.exec(Buffer.from(bytes.subarray(0, 60)).toString("latin1"))?.[1]);
}

/** A running `frames send -` and the pipe into it. */
export class Camera {
  readonly child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  /** Number of frames written so far. */
  shot = 0;
  readonly #stdout: { text: string; finished: Promise<void> };
  readonly #stderr: { text: string; finished: Promise<void> };

  /** @param inputs inputs to send; by default only the pipe */
  constructor(args: readonly string[], inputs: readonly string[] = ["-", "--source", "visible"]) {
    this.child = Bun.spawn([executable, "send", ...inputs, "--stream", "run7", "--json", ...args], {
      env: environment(),
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#stdout = collect(this.child.stdout);
    this.#stderr = collect(this.child.stderr);
  }

  get stdout(): string {
    return this.#stdout.text;
  }

  get stderr(): string {
    return this.#stderr.text;
  }

  /** Writes any bytes. Does nothing if the program no longer reads. */
  async write(bytes: Uint8Array): Promise<void> {
    try {
      this.child.stdin.write(bytes);
      await this.child.stdin.flush();
    } catch (error) {
      if ((error as { code?: string }).code !== "EPIPE") throw error;
    }
  }

  /** Writes `count` frames, one every `every` milliseconds. */
  async shoot(count: number, size = 100, every = 0): Promise<void> {
    for (let left = count; left > 0; left--) {
      await this.write(pgm(++this.shot, size));
      if (every > 0) await Bun.sleep(every);
    }
  }

  async close(): Promise<void> {
    await this.child.stdin.end();
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name);
  }

  /** Waits until the program ends, without stopping it. */
  async ended(): Promise<{ code: number; stdout: string; stderr: string }> {
    const code = await within(this.child.exited, () => `frames send - did not end: ${this.stderr}`);
    await Promise.all([this.#stdout.finished, this.#stderr.finished]);
    return { code, stdout: this.stdout, stderr: this.stderr };
  }

  [Symbol.dispose](): void {
    this.child.kill("SIGKILL");
  }
}

function collect(stream: ReadableStream<Uint8Array<ArrayBuffer>>): {
  text: string;
  finished: Promise<void>;
} {
  const collected = { text: "", finished: Promise.resolve() };
  const read = async (): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) collected.text += decoder.decode(chunk, { stream: true });
  };
  collected.finished = read();
  return collected;
}

/** Creates a spool path for one test. `numbers` lists the frames in the spool. */
export function newSpool(): { readonly path: string; numbers(source?: string): number[] } {
  const path = join(temporaryFolder(), "spool");
  const numbers = (source = "visible") => {
    try {
      const names = readdirSync(join(path, source)).filter((name) => /^\d+$/.test(name));
      return names.map(Number).sort((a, b) => a - b);
    } catch {
      // The program has not created the spool yet.
      return [];
    }
  };
  return { path, numbers };
}
