/**
 * The HTTP server of `--http`: authenticates each request, routes it, and adds the security
 * headers.
 */
import { FramesError, systemCode, systemSentence } from "../errors.ts";
import type { Authenticator } from "./auth/authenticator.ts";
import type { Principal } from "./principal.ts";
import { HttpError, toErrorResponse, withSecurityHeaders } from "./responses.ts";
import { maxBodyBytes } from "./request-body.ts";
import type { SocketHandler } from "./routes/request.ts";
import type { HttpContext } from "./context.ts";
import { route } from "./routes/routes.ts";
import { StreamClients } from "./stream-clients.ts";
import { OpenFileGuard, type AcceptGate } from "./open-file-guard.ts";
import { localHost } from "../common/any-address.ts";
import { maxOpenFiles, countOpenFiles } from "../common/open-files.ts";

/** Listen address. An empty host means all interfaces. */
export interface HttpAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Time limit for receiving a whole request, head and body, even if bytes trickle in.
 * A response may take longer.
 */
const requestTimeoutSeconds = 10;

/** Intervals of the expiry sweep and of the open-file check. */
const sweepIntervalMs = 1000;
const guardIntervalMs = 20;
/** Time that clients get to read the final message before their connections are closed. */
const closeTimeoutMs = 200;

/** Size limit of a WebSocket message that a client sends. */
const maxMessageBytes = 65_536;

/** Data attached to a WebSocket. */
export interface SocketData {
  readonly handler: SocketHandler;
}

export class HttpServer implements AcceptGate {
  readonly #authenticator: Authenticator;
  /** Servers that have listened. Only the last one may still accept connections. */
  readonly #servers = new Set<Bun.Server<SocketData>>();
  readonly #listen: (port: number) => Bun.Server<SocketData>;
  readonly #host: string;
  readonly #isTls: boolean;
  /** Open event streams, MJPEG streams and WebSockets. */
  readonly clients = new StreamClients();
  readonly #timers: NodeJS.Timeout[];
  readonly #port: number;
  #context: HttpContext | undefined;

  /**
   * Starts listening. Requests are answered with `stopping` until `setContext` is called.
   *
   * @throws {FramesError} `unreachable` if the address cannot be used
   */
  constructor(address: HttpAddress, authenticator: Authenticator, tls?: Bun.TLSOptions) {
    this.#authenticator = authenticator;
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
        // Outside development mode, Bun would otherwise share the port with other processes.
        reusePort: false,
        fetch: (request, server) => this.#fetch(request, server),
        // An error while a response is sent ends the response. A client that disconnects is not
        // logged.
        error: (error) => this.#handleError(error),
        websocket: {
          maxPayloadLength: maxMessageBytes,
          // A slow client drops frames and stays connected.
          idleTimeout: 0,
          sendPings: false,
          perMessageDeflate: false,
          open: (socket) => socket.data.handler.onOpen(socket),
          message: (socket, message) => socket.data.handler.onMessage(message),
          drain: (socket) => socket.data.handler.onDrain(),
          close: (socket) => socket.data.handler.onClose(),
        },
      });
      this.#servers.add(server);
      return server;
    };
    try {
      this.#port = this.#listen(address.port).port!;
    } catch (error) {
      const isInUse = systemCode(error) === "EADDRINUSE";
      const hint = isInUse ? "; choose another port with --http" : "";
      const host = address.host.includes(":") ? `[${address.host}]` : address.host;
      throw new FramesError(
        "unreachable",
        `Cannot serve the page at ${host}:${address.port}: ${systemSentence(error)}${hint}`,
        { cause: error },
      );
    }
    const guard = new OpenFileGuard(maxOpenFiles(), countOpenFiles, this);
    this.#timers = [
      setInterval(() => authenticator.sweepExpired(), sweepIntervalMs),
      setInterval(() => guard.check(), guardIntervalMs),
    ];
  }

  pauseAccepting(): void {
    for (const server of this.#servers) void server.stop();
    const message =
      "Too many files are open: the page and API refuse requests for now; raise ulimit -n";
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
      // Another process uses the port at the moment.
      return false;
    }
  }

  /** Sets what the routes serve. Call it once, when the store is open. */
  setContext(context: HttpContext): void {
    this.#context = context;
  }

  get host(): string {
    return this.#host;
  }

  get port(): number {
    return this.#port;
  }

  /** `HOST:PORT`. For a server on all interfaces, the loopback address. */
  get address(): string {
    const host = localHost(this.#host);
    return `${host.includes(":") ? `[${host}]` : host}:${this.port}`;
  }

  /** URL of the page. */
  get url(): string {
    return `${this.#isTls ? "https" : "http"}://${this.address}/`;
  }

  async #fetch(request: Request, server: Bun.Server<SocketData>): Promise<Response | undefined> {
    try {
      const address = server.requestIP(request);
      const peer = address === null ? "unknown" : address.address.replace(/^::ffff:/, "");
      const principal = await this.#authenticator.authenticate(request, peer);
      if (principal instanceof Response) return withSecurityHeaders(principal);
      const response = await this.#respond(request, peer, principal, server);
      return response === undefined ? undefined : withSecurityHeaders(response);
    } catch (error) {
      return this.#handleError(error);
    }
  }

  /**
   * Turns an error into a response. Logs errors other than `FramesError`, since they are server
   * faults.
   */
  #handleError(error: unknown): Response {
    if (!(error instanceof FramesError)) {
      const text = Bun.inspect(error).slice(0, 500);
      this.#context?.liveSources.problems.add("internal", `Cannot answer over HTTP: ${text}`);
    }
    return withSecurityHeaders(toErrorResponse(error));
  }

  /** Returns the response, or undefined if the request became a WebSocket. */
  async #respond(
    request: Request,
    peer: string,
    principal: Principal,
    server: Bun.Server<SocketData>,
  ): Promise<Response | undefined> {
    if (request.method !== "GET" && request.method !== "HEAD") {
      const message = `Cannot answer ${request.method} here`;
      throw new HttpError(405, "usage", message, { Allow: "GET, HEAD" });
    }
    const url = new URL(request.url);
    const context = this.#context;
    if (context === undefined) throw new FramesError("stopping", "The server is starting");
    // Bun counts as idle also how long a request waits for the server's own work.
    server.timeout(request, 0);
    let idleTimeout = requestTimeoutSeconds;
    return await route({
      context,
      request,
      url,
      principal,
      clients: this.clients,
      run: context.runnerFor(peer, request.signal),
      setIdleTimeout: (seconds) => (idleTimeout = seconds),
      upgrade: (handler, subprotocol) => {
        const headers = subprotocol === undefined ? {} : { "Sec-WebSocket-Protocol": subprotocol };
        return server.upgrade(request, { data: { handler }, headers });
      },
    }).finally(() => server.timeout(request, idleTimeout));
  }

  /** Stops listening and ends all responses, after telling streaming clients the reason. */
  async stop(): Promise<void> {
    this.#timers.forEach(clearInterval);
    // Clients that read get the reason. Clients that do not read are cut off after the timeout.
    if (this.clients.endAll() > 0) {
      const ended = Promise.all([...this.#servers].map((server) => server.stop()));
      await Promise.race([ended, Bun.sleep(closeTimeoutMs)]);
    }
    await Promise.all([...this.#servers].map((server) => server.stop(true)));
    this.#context?.close();
  }
}
