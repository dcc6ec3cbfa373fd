/** The HTTP server of `--http`: lets in or turns away, finds who answers, and puts the headers on what is said. */
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Access, Visitor } from "./access.ts";
import { failure, refusal, secured } from "./answers.ts";
import { longestBody } from "./body.ts";
import type { Asked } from "./asked.ts";
import type { Exhibition } from "./exhibition.ts";
import { answerTo } from "./routes.ts";
import type { PageSocket } from "./page-socket.ts";
import { Viewers } from "./viewers.ts";
import { FileGuard, type Gate } from "./file-guard.ts";
import { mostOpenFiles, openFiles } from "../open-files.ts";

/** Where to listen; an empty host is every interface. */
export interface HttpAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Seconds within which a request must be whole, its head and then its body, however it trickles in; an answer
 * may take as long as it takes.
 */
const idleSeconds = 10;

/** How often it is looked who may look no longer, and how many files are open, in milliseconds. */
const lookEvery = 1000;
const guardEvery = 20;
/** The last words to those who look on may take so long. */
const farewellMilliseconds = 200;

/** Bytes of a message of the page. */
const longestMessage = 65_536;

/** Whom a WebSocket belongs to. */
export interface SocketData {
  readonly view: PageSocket;
}

export class ViewerServer implements Gate {
  readonly #access: Access;
  /** Those that listened; the last one may still do so. */
  readonly #servers = new Set<Bun.Server<SocketData>>();
  readonly #listen: (port: number) => Bun.Server<SocketData>;
  readonly #host: string;
  readonly #isSecure: boolean;
  /** Those who look on. */
  readonly viewers = new Viewers();
  readonly #timers: NodeJS.Timeout[];
  readonly #port: number;
  #exhibition: Exhibition | undefined;

  /**
   * Listens; what it shows comes with `show`.
   *
   * @throws {FramesError} `unreachable` if the address cannot be had
   */
  constructor(address: HttpAddress, access: Access, tls?: Bun.TLSOptions) {
    this.#access = access;
    this.#host = address.host;
    this.#isSecure = tls !== undefined;
    this.#listen = (port) => {
      const server = Bun.serve<SocketData>({
        hostname: address.host || "::",
        port,
        ...(tls === undefined ? {} : { tls }),
        idleTimeout: idleSeconds,
        maxRequestBodySize: longestBody,
        development: false,
        // Without development Bun would share the port with whoever asks for it too.
        reusePort: false,
        fetch: (request, server) => this.#fetch(request, server),
        // What goes wrong while an answer is under way ends it; that a viewer went away is no news.
        error: (error) => this.#failed(error),
        websocket: {
          maxPayloadLength: longestMessage,
          // Whoever does not read is passed over, and stays.
          idleTimeout: 0,
          sendPings: false,
          perMessageDeflate: false,
          open: (socket) => socket.data.view.opened(socket),
          message: (socket, message) => socket.data.view.heard(message),
          drain: (socket) => socket.data.view.drained(),
          close: (socket) => socket.data.view.closed(),
        },
      });
      this.#servers.add(server);
      return server;
    };
    try {
      this.#port = this.#listen(address.port).port!;
    } catch (error) {
      const taken = systemCode(error) === "EADDRINUSE";
      const hint = taken ? "; --http takes another" : "";
      const host = address.host.includes(":") ? `[${address.host}]` : address.host;
      throw new FramesError(
        "unreachable",
        `Cannot show frames at ${host}:${address.port}: ${systemSentence(error)}${hint}`,
        { cause: error },
      );
    }
    const guard = new FileGuard(mostOpenFiles(), openFiles, this);
    this.#timers = [
      setInterval(() => access.look(), lookEvery),
      setInterval(() => guard.look(), guardEvery),
    ];
  }

  close(): void {
    for (const server of this.#servers) void server.stop();
    const message = "Too many files are open: nobody is let in to look until there are fewer";
    this.#exhibition?.live.problems.add("full", message);
  }

  clear(): void {
    for (const server of this.#servers) void server.stop(true);
    this.#servers.clear();
  }

  open(): boolean {
    try {
      this.#listen(this.#port);
      return true;
    } catch {
      // Somebody else has the port for now.
      return false;
    }
  }

  /** What is to be seen from now on. */
  show(exhibition: Exhibition): void {
    this.#exhibition = exhibition;
  }

  get host(): string {
    return this.#host;
  }

  get port(): number {
    return this.#port;
  }

  /** `HOST:PORT`; of a server at every interface an address of this machine. */
  get address(): string {
    const host = this.#host || "127.0.0.1";
    return `${host.includes(":") ? `[${host}]` : host}:${this.port}`;
  }

  /** Where to see it, as a browser takes it. */
  get url(): string {
    return `${this.#isSecure ? "https" : "http"}://${this.address}/`;
  }

  async #fetch(request: Request, server: Bun.Server<SocketData>): Promise<Response | undefined> {
    try {
      const address = server.requestIP(request);
      const peer = address === null ? "unknown" : address.address.replace(/^::ffff:/, "");
      const visitor = await this.#access.admit(request, peer);
      if (visitor instanceof Response) return secured(visitor);
      const answer = await this.#answer(request, visitor, server);
      return answer === undefined ? undefined : secured(answer);
    } catch (error) {
      return this.#failed(error);
    }
  }

  /** What is no error of the request is a fault of the server, which is told. */
  #failed(error: unknown): Response {
    if (!(error instanceof FramesError)) {
      const said = Bun.inspect(error).slice(0, 500);
      this.#exhibition?.live.problems.add("internal", `Cannot answer over HTTP: ${said}`);
    }
    return secured(failure(error));
  }

  /** The answer, or nothing to a request that became a WebSocket. */
  async #answer(
    request: Request,
    visitor: Visitor,
    server: Bun.Server<SocketData>,
  ): Promise<Response | undefined> {
    if (request.method !== "GET" && request.method !== "HEAD") {
      return refusal(405, "usage", `Cannot ${request.method} here`, { Allow: "GET, HEAD" });
    }
    const url = new URL(request.url);
    const exhibition = this.#exhibition;
    if (exhibition === undefined) throw new FramesError("stopping", "The server is starting");
    const asked: Asked = {
      request,
      url,
      visitor,
      viewers: this.viewers,
      mayTake: (seconds) => server.timeout(request, seconds),
      becomesSocket: (view) => server.upgrade(request, { data: { view } }),
    };
    return answerTo(asked, exhibition);
  }

  /** Ends what is still going out, and lets nobody in any more. */
  async stop(): Promise<void> {
    this.#timers.forEach(clearInterval);
    // Those who read hear why; nobody waits for those who do not.
    if (this.viewers.end() > 0) {
      const ended = Promise.all([...this.#servers].map((server) => server.stop()));
      await Promise.race([ended, Bun.sleep(farewellMilliseconds)]);
    }
    await Promise.all([...this.#servers].map((server) => server.stop(true)));
    this.#exhibition?.close();
  }
}
