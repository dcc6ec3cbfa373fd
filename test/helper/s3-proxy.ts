// A proxy before an S3 engine that simulates failures of network and engine.

/** Selects the requests affected. */
type Which = (request: Request) => boolean;

export interface S3Proxy {
  readonly endpoint: string;
  /** An address of this machine under a different host name. */
  readonly otherHost: string;
  /** Number of responses lost, and of bodies changed. */
  readonly lost: number;
  readonly changed: number;
  /** Forwards this many requests but drops the responses. */
  loseAnswer(which: Which, times: number): void;
  /** Responds to this many requests itself. */
  answer(which: Which, times: number, make: () => Response | Promise<Response>): void;
  /** Flips a bit in the body of this many requests. */
  change(which: Which, times: number): void;
  /** Removes all faults. */
  reset(): void;
  stop(): void;
}

export function startS3Proxy(engine: string): S3Proxy {
  type Fault = {
    which: Which;
    times: number;
    kind: "lose" | "answer" | "change";
    make?: () => Response | Promise<Response>;
  };
  let faults: Fault[] = [];
  let [lost, changed] = [0, 0];
  const server = Bun.serve({
    hostname: "0.0.0.0",
    port: 0,
    maxRequestBodySize: 1 << 30,
    async fetch(request) {
      const fault = faults.find(({ which, times }) => times > 0 && which(request));
      if (fault !== undefined) fault.times--;
      const { pathname, search } = new URL(request.url);
      const headers = new Headers(request.headers);
      // The signature covers the host.
      headers.set("Host", request.headers.get("host")!);
      const bytes = new Uint8Array(await request.arrayBuffer());
      if (fault?.kind === "answer") return fault.make!();
      if (fault?.kind === "change" && bytes.length > 0) {
        bytes[bytes.length >> 1]! ^= 1;
        changed++;
      }
      const answer = await fetch(`${engine}${pathname}${search}`, {
        method: request.method,
        headers,
        ...(request.method === "PUT" ? { body: bytes } : {}),
        decompress: false,
      });
      if (fault?.kind === "lose") {
        lost++;
        await answer.arrayBuffer();
        return new Response("<Error><Code>InternalError</Code></Error>", { status: 500 });
      }
      return answer;
    },
  });
  return {
    endpoint: `http://127.0.0.1:${server.port}`,
    otherHost: "127.1",
    get lost() {
      return lost;
    },
    get changed() {
      return changed;
    },
    loseAnswer: (which, times) => void faults.push({ which, times, kind: "lose" }),
    answer: (which, times, make) => void faults.push({ which, times, kind: "answer", make }),
    change: (which, times) => void faults.push({ which, times, kind: "change" }),
    reset() {
      faults = [];
      lost = changed = 0;
    },
    stop: () => void server.stop(true),
  };
}
