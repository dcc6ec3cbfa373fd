// A running `frames send -v` and its parsed output.

import { environment, executable } from "../helper/program.ts";
import type { Room } from "./room.ts";
import { keyOf } from "./scenario.ts";

/** Timeout of both sides for a silent peer, in seconds. */
export const timeout = 3;

/** Receives the events of a sender's output. */
export interface Listener {
  connected(): void;
  /** A frame was sent completely. */
  sent(key: string): void;
  receipted(key: string): void;
  /** All frames were sent. */
  ending(): void;
  /** The server ended the connection with this error number. */
  told(error: number): void;
  /** Output of this connection was not read in time and is incomplete. */
  missed(): void;
  wrong(what: string): void;
  /** A frame was refused or lost, as `line` says. */
  undelivered(line: string): void;
  line(text: string): void;
}

/** How a sender ended. */
export interface Ended {
  /** Exit status; `undefined` if it was killed. */
  readonly code: number | undefined;
  /** Whether it ever received WELCOME. */
  readonly wasWelcome: boolean;
  /** Number of the last error from the server. */
  readonly told: number | undefined;
}

/** One sender process. */
export class Sender {
  /** Resolves when the process has ended and its output has been read. */
  readonly ended: Promise<Ended>;
  readonly #child: Bun.Subprocess<"ignore" | "pipe", "ignore", "pipe">;
  readonly #listener: Listener;
  /** Frames that ended on this connection, in order; `undefined` for aborted ones. */
  #sent: (string | undefined)[] = [];
  #settled = 0;
  #wasWelcome = false;
  #told: number | undefined;
  /** Whether output of this connection is missing, so that receipts cannot be mapped to frames. */
  #isUnclear = true;

  /**
   * @param args arguments of `frames send`
   * @param hasInput whether it reads from `write`
   */
  constructor(args: readonly string[], hasInput: boolean, room: Room, listener: Listener) {
    this.#listener = listener;
    this.#child = Bun.spawn([executable, "send", ...args, "-v"], {
      env: environment(),
      stdio: [hasInput ? "pipe" : "ignore", "ignore", "pipe"],
    });
    room.adopt(this.#child);
    this.ended = this.#run();
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Whether it ever received WELCOME. */
  get wasWelcome(): boolean {
    return this.#wasWelcome;
  }

  /** Writes to its standard input. Resolves when it took the bytes or has ended. */
  async write(bytes: Uint8Array): Promise<void> {
    const input = this.#child.stdin as Bun.FileSink;
    const written = (async () => {
      await input.write(bytes);
      await input.flush();
    })();
    await Promise.race([written.catch(() => {}), this.#child.exited]);
  }

  /** Ends its standard input. */
  async endInput(): Promise<void> {
    const input = this.#child.stdin as Bun.FileSink;
    await Promise.race([Promise.resolve(input.end()).catch(() => {}), this.#child.exited]);
  }

  /** Stops it as Ctrl-C does. */
  interrupt(): void {
    this.#child.kill("SIGINT");
  }

  /** Makes it stand still until `resume`. */
  suspend(): void {
    this.#child.kill("SIGSTOP");
  }

  resume(): void {
    this.#child.kill("SIGCONT");
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  async #run(): Promise<Ended> {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of this.#child.stderr) {
      const lines = (text + decoder.decode(chunk, { stream: true })).split("\n");
      // A line cut off by a kill is ignored.
      text = lines.pop()!;
      for (const line of lines) this.#line(line);
    }
    await this.#child.exited;
    const { exitCode } = this.#child;
    return { code: exitCode ?? undefined, wasWelcome: this.#wasWelcome, told: this.#told };
  }

  #line(line: string): void {
    this.#listener.line(line);
    const [direction, type, ...words] = line.split(" ", 6);
    if (direction === "->") this.#out(type!, words, line);
    else if (direction === "<-") this.#in(type!, line.slice(direction.length + type!.length + 2));
    else if (line.includes("Not delivered")) this.#listener.undelivered(line);
    else if (/^\d+ lines are missing here/.test(line)) {
      this.#isUnclear = true;
      this.#listener.missed();
    }
  }

  #out(type: string, words: string[], line: string): void {
    if (type === "HELLO") {
      this.#sent = [];
      this.#settled = 0;
      this.#isUnclear = false;
    } else if (type === "FRAME") {
      const key = keyOf({ source: words[0]!, name: words[2]! });
      this.#sent.push(key);
      this.#listener.sent(key);
    } else if (type === "ABORT") {
      this.#sent.push(undefined);
    } else if (type === "END") {
      this.#listener.ending();
    } else if (type === "LOST") {
      this.#listener.undelivered(line);
    }
  }

  #in(type: string, body: string): void {
    if (type === "WELCOME") {
      this.#wasWelcome = true;
      this.#listener.connected();
    } else if (type === "RECEIPT") {
      this.#settle(Number(body));
    } else if (type === "DONE") {
      const { frames } = JSON.parse(body) as { frames: number };
      if (frames !== this.#sent.length && !this.#isUnclear) {
        this.#listener.wrong(`DONE counts ${frames} frames of ${this.#sent.length}`);
      }
      this.#settle(frames);
    } else if (type === "ERROR") {
      this.#told = (JSON.parse(body) as { error: number }).error;
      this.#listener.told(this.#told);
    } else if (type === "REFUSED") {
      this.#listener.undelivered(`REFUSED ${body}`);
    }
  }

  #settle(frames: number): void {
    if (this.#isUnclear) return;
    if (!(frames >= this.#settled && frames <= this.#sent.length)) {
      const range = `${this.#settled} to ${this.#sent.length}`;
      this.#listener.wrong(`a receipt counts ${frames} frames: it can be ${range}`);
    }
    for (; this.#settled < frames; this.#settled++) {
      const key = this.#sent[this.#settled];
      if (key !== undefined) this.#listener.receipted(key);
    }
  }
}
