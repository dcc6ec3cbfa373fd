/** The HTTP server of `--http`: lets in or turns away, finds who answers, and puts the headers on what is said. */
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { AccessControl, Principal } from "./auth/access.ts";
import { toErrorResponse, errorResponse, withSecurityHeaders } from "./responses.ts";
import { maxBodyBytes } from "./request-body.ts";
import type { RouteRequest } from "./request.ts";
import type { HttpContext } from "./context.ts";
import { route } from "./routes/routes.ts";
import type { LiveSocket } from "./routes/live-socket.ts";
import { StreamClients } from "./stream-clients.ts";
import { OpenFileGuard, type AcceptGate } from "./open-file-guard.ts";
import { maxOpenFiles, countOpenFiles } from "../common/open-files.ts";

/** Where to listen; an empty host is every interface. */
export interface HttpAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Seconds within which a request must be whole, its head and then its body, however it trickles in; an answer
 * may take as long as it takes.
 */
const requestTimeoutSeconds = 10;

/** How often it is looked who may look no longer, and how many files are open, in milliseconds. */
const sweepIntervalMs = 1000;
const guardIntervalMs = 20;
/** The last words to those who look on may take so long. */
const closeTimeoutMs = 200;

/** Bytes of a message of the page. */
const maxMessageBytes = 65_536;

/** Whom a WebSocket belongs to. */
export interface SocketData {
  readonly liveSocket: LiveSocket;
}

export class HttpServer implements AcceptGate {
  readonly #accessControl: AccessControl;
  /** Those that listened; the last one may still do so. */
  readonly #servers = new Set<Bun.Server<SocketData>>();
  readonly #listen: (port: number) => Bun.Server<SocketData>;
  readonly #host: string;
  readonly #isTls: boolean;
  /** Those who look on. */
  readonly clients = new StreamClients();
  readonly #timers: NodeJS.Timeout[];
  readonly #port: number;
  #context: HttpContext | undefined;

  /**
   * Listens; what it shows comes with `show`.
   *
   * @throws {FramesError} `unreachable` if the address cannot be had
   */
  constructor(address: HttpAddress, accessControl: AccessControl, tls?: Bun.TLSOptions) {
    this.#accessControl = accessControl;
    this.#host = address.host;
    this.#isTls = tls !== undefined;
    this.#listen = (port) => {
      const server = Bun.serve<SocketData>({
        hostname: address.host || "::",
        port,
        ...(tls === undefined ? {} : { tls }),
        idleTimeout: requestTimeoutSeconds,
        maxRequestBodySize: maxBodyBytes,
        development: false,
        // Without development Bun would share the port with whoever asks for it too.
        reusePort: false,
        fetch: (request, server) => this.#fetch(request, server),
        // What goes wrong while an answer is under way ends it; that a viewer went away is no news.
        error: (error) => this.#handleError(error),
        websocket: {
          maxPayloadLength: maxMessageBytes,
          // Whoever does not read is passed over, and stays.
          idleTimeout: 0,
          sendPings: false,
          perMessageDeflate: false,
          open: (socket) => socket.data.liveSocket.onOpen(socket),
          message: (socket, message) => socket.data.liveSocket.onMessage(message),
          drain: (socket) => socket.data.liveSocket.onDrain(),
          close: (socket) => socket.data.liveSocket.onClose(),
        },
      });
      this.#servers.add(server);
      return server;
    };
    try {
      this.#port = this.#listen(address.port).port!;
    } catch (error) {
      const isInUse = systemCode(error) === "EADDRINUSE";
      const hint = isInUse ? "; --http takes another" : "";
      const host = address.host.includes(":") ? `[${address.host}]` : address.host;
      throw new FramesError(
        "unreachable",
        `Cannot show frames at ${host}:${address.port}: ${systemSentence(error)}${hint}`,
        { cause: error },
      );
    }
    const guard = new OpenFileGuard(maxOpenFiles(), countOpenFiles, this);
    this.#timers = [
      setInterval(() => accessControl.sweepExpired(), sweepIntervalMs),
      setInterval(() => guard.check(), guardIntervalMs),
    ];
  }

  pauseAccepting(): void {
    for (const server of this.#servers) void server.stop();
    const message = "Too many files are open: nobody is let in to look until there are fewer";
    this.#context?.liveSources.problems.add("full", message);
  }

  dropAll(): void {
    for (const server of this.#servers) void server.stop(true);
    this.#servers.clear();
  }

  resumeAccepting(): boolean {
    try {
      this.#listen(this.#port);
      return true;
    } catch {
      // Somebody else has the port for now.
      return false;
    }
  }

  /** What is to be seen from now on. */
  setContext(context: HttpContext): void {
    this.#context = context;
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
    return `${this.#isTls ? "https" : "http"}://${this.address}/`;
  }

  async #fetch(request: Request, server: Bun.Server<SocketData>): Promise<Response | undefined> {
    try {
      const address = server.requestIP(request);
      const peer = address === null ? "unknown" : address.address.replace(/^::ffff:/, "");
      const principal = await this.#accessControl.authenticate(request, peer);
      if (principal instanceof Response) return withSecurityHeaders(principal);
      const response = await this.#respond(request, principal, server);
      return response === undefined ? undefined : withSecurityHeaders(response);
    } catch (error) {
      return this.#handleError(error);
    }
  }

  /** What is no error of the request is a fault of the server, which is told. */
  #handleError(error: unknown): Response {
    if (!(error instanceof FramesError)) {
      const text = Bun.inspect(error).slice(0, 500);
      this.#context?.liveSources.problems.add("internal", `Cannot answer over HTTP: ${text}`);
    }
    return withSecurityHeaders(toErrorResponse(error));
  }

  /** The answer, or nothing to a request that became a WebSocket. */
  async #respond(
    request: Request,
    principal: Principal,
    server: Bun.Server<SocketData>,
  ): Promise<Response | undefined> {
    if (request.method !== "GET" && request.method !== "HEAD") {
      return errorResponse(405, "usage", `Cannot ${request.method} here`, { Allow: "GET, HEAD" });
    }
    const url = new URL(request.url);
    const context = this.#context;
    if (context === undefined) throw new FramesError("stopping", "The server is starting");
    const req: RouteRequest = {
      request,
      url,
      principal,
      clients: this.clients,
      setIdleTimeout: (seconds) => server.timeout(request, seconds),
      upgrade: (liveSocket) => server.upgrade(request, { data: { liveSocket } }),
    };
    return route(req, context);
  }

  /** Ends what is still going out, and lets nobody in any more. */
  async stop(): Promise<void> {
    this.#timers.forEach(clearInterval);
    // Those who read hear why; nobody waits for those who do not.
    if (this.clients.endAll() > 0) {
      const ended = Promise.all([...this.#servers].map((server) => server.stop()));
      await Promise.race([ended, Bun.sleep(closeTimeoutMs)]);
    }
    await Promise.all([...this.#servers].map((server) => server.stop(true)));
    this.#context?.close();
  }
}
