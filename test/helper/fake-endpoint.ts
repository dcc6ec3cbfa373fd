// A small HTTP server that gives out credentials, or answers in a wrong way.

/** A request that the endpoint got. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  readonly body: string;
}

export interface FakeEndpoint extends Disposable {
  /** `http://127.0.0.1:PORT` */
  readonly origin: string;
  readonly seen: readonly SeenRequest[];
  /** Makes the answers from now on. */
  answer: (request: SeenRequest) => Response | Promise<Response>;
}

export function startEndpoint(answer: FakeEndpoint["answer"]): FakeEndpoint {
  const seen: SeenRequest[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      const { method, headers } = request;
      const body = await request.text();
      const got = { method, path: pathname + search, headers, body };
      seen.push(got);
      return endpoint.answer(got);
    },
  });
  const endpoint: FakeEndpoint = {
    origin: `http://127.0.0.1:${server.port}`,
    seen,
    answer,
    [Symbol.dispose]: () => void server.stop(true),
  };
  return endpoint;
}

/** Keys in the form of containers and instances. */
export function keyDocument(fields: Record<string, unknown> = {}): Response {
  return Response.json({
    AccessKeyId: "ASIAFAKEFAKEFAKEFAKE",
    SecretAccessKey: "secret-of-the-role",
    Token: "token-of-the-role",
    Expiration: new Date(Date.now() + 6 * 3600_000).toISOString(),
    ...fields,
  });
}

/** A body of a gigabyte that is made while it is read. Counts the bytes that were taken. */
export function gigabyte(): { response: Response; readonly taken: number } {
  const chunk = new Uint8Array(1 << 20).fill(0x20);
  let taken = 0;
  const body = new ReadableStream({
    pull(controller) {
      taken += chunk.length;
      if (taken > 1 << 30) controller.close();
      else controller.enqueue(chunk);
    },
  });
  return {
    response: new Response(body),
    get taken() {
      return taken;
    },
  };
}

/** Wrong answers of any endpoint, with what the error says. */
export const wrongAnswers: readonly [
  what: string,
  make: () => Response | Promise<Response>,
  says: RegExp,
][] = [
  ["nothing", () => new Promise(() => {}), /did not answer in time/],
  [
    "a body that does not end",
    () => new Response(new ReadableStream({ pull: () => new Promise(() => {}) })),
    /did not answer in time/,
  ],
  ["a redirect", () => Response.redirect("http://127.0.0.1:1/"), /HTTP 302/],
  ["an error", () => new Response("", { status: 503 }), /HTTP 503/],
  ["a gigabyte", () => gigabyte().response, /more than 65536 bytes/],
];
