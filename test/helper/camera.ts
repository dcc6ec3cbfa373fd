// A camera that a test is: it writes frames into the pipe of a running `frames send -`.

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { environment, executable, temporaryFolder } from "./program.ts";
import { within } from "./time.ts";

/** A whole PGM of about `size` bytes, unlike any other number's. */
export function pgm(number: number, size = 100): Uint8Array {
  const width = Math.max(16, size - 20);
  const picture = Buffer.alloc(width, number % 251);
  picture.write(`frame ${number}`, "latin1");
  return Buffer.concat([Buffer.from(`P5 ${width} 1 255\n`, "latin1"), picture]);
}

/** Which number a PGM was made with. */
export function numberOf(bytes: Uint8Array): number {
  return Number(/frame (\d+)/.exec(Buffer.from(bytes.subarray(0, 60)).toString("latin1"))?.[1]);
}

/** A running `frames send -`, and its pipe. */
export class Camera {
  readonly child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  /** Frames that it has taken so far. */
  shot = 0;
  readonly #stdout: { text: string; finished: Promise<void> };
  readonly #stderr: { text: string; finished: Promise<void> };

  /** @param inputs what is sent: the pipe, unless something else comes beside it */
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

  /** Writes bytes, whatever they are; a program that reads no more does not matter. */
  async write(bytes: Uint8Array): Promise<void> {
    try {
      this.child.stdin.write(bytes);
      await this.child.stdin.flush();
    } catch (error) {
      if ((error as { code?: string }).code !== "EPIPE") throw error;
    }
  }

  /** Takes so many frames, `every` so many milliseconds. */
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

  /** Waits for its end, whatever brings that about. */
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

/** A spool for one test, and the numbers of the frames that lie in it. */
export function newSpool(): { readonly path: string; numbers(source?: string): number[] } {
  const path = join(temporaryFolder(), "spool");
  const numbers = (source = "visible") => {
    try {
      const names = readdirSync(join(path, source)).filter((name) => /^\d+$/.test(name));
      return names.map(Number).sort((a, b) => a - b);
    } catch {
      // It is made when the program has begun.
      return [];
    }
  };
  return { path, numbers };
}
