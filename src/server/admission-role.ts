/**
 * Admits a client that speaks FRAMES/1: reads its HELLO and proof, answers with WELCOME, and begins the
 * role that HELLO asks for.
 */
import { asFramesError, FramesError, truncateMessage } from "../errors.ts";
import { defined } from "../common/defined.ts";
import { monotonicNow } from "../common/clock.ts";
import { type AdmittedClient, ServerHandshake } from "../protocol/handshake.ts";
import type { WelcomeFields } from "../protocol/handshake.ts";
import { software } from "../version.ts";
import type { Hello } from "../wire/messages.ts";
import { IngestRole } from "./ingest-role.ts";
import type { PeerConnection, ServerContext } from "./peer-connection.ts";
import { PlaybackRole } from "./playback-role.ts";
import { type ConnectionRole, noCounts } from "./connection-role.ts";
import { replyToWrongProtocol } from "./wrong-protocol.ts";

export class AdmissionRole implements ConnectionRole {
  readonly peerName = "sender";
  readonly counts = noCounts;
  readonly isDone = false;
  readonly #server: ServerContext;
  readonly #connection: PeerConnection;
  readonly #handshake: ServerHandshake;
  #hasReceived = false;
  /** Prepared for a client that receives, until it takes over. */
  #playback: PlaybackRole | undefined;

  /**
   * @param exporter exported keying material of the TLS channel (RFC 9266), if the server requires
   * a key
   */
  constructor(server: ServerContext, connection: PeerConnection, exporter: Uint8Array | undefined) {
    this.#server = server;
    this.#connection = connection;
    const { keys, timeoutMs } = server;
    this.#handshake = new ServerHandshake(keys, exporter, timeoutMs, monotonicNow());
  }

  get hasHello(): boolean {
    return this.#handshake.hello !== undefined;
  }

  /** Undefined for a client that is not admitted, because its words are not logged. */
  get stream(): string | undefined {
    return this.#handshake.isAdmitted ? this.#handshake.hello!.stream : undefined;
  }

  /** Whether the answer to HELLO is being prepared. */
  get isPaused(): boolean {
    return this.#handshake.isAdmitted;
  }

  receive(chunk: Uint8Array, now: number): void {
    if (!this.#hasReceived) {
      this.#hasReceived = true;
      const wrongProtocol = replyToWrongProtocol(chunk, this.#server);
      if (wrongProtocol !== undefined) {
        this.#connection.socket.send(wrongProtocol.bytes);
        throw wrongProtocol.error;
      }
    }
    const hello = this.#handshake.receive(chunk, now);
    this.#server.setBufferedBytes(this.#connection, this.#handshake.bufferedBytes);
    if (hello !== undefined && !this.#connection.hasFailed) this.#admit(hello);
  }

  transmit(): void {
    for (const bytes of this.#handshake.drain()) this.#connection.socket.send(bytes);
  }

  tick(now: number): void {
    this.#handshake.tick(now);
  }

  onEnd(): void {
    // After its FIN the client cannot complete the handshake any more.
    if (!this.#handshake.isAdmitted) this.#connection.socket.finish();
  }

  #admit(hello: Hello): void {
    const connection = this.#connection;
    connection.socket.markIdentified();
    connection.key = this.#handshake.key;
    connection.checkKey(hello);
    const { store } = this.#server;
    if (hello.role === "receive") return this.#await(this.#beginPlayback(hello));
    // Another server of the same bucket may have stored frames of this session.
    if (store.refresh === undefined) return this.#beginIngest(hello);
    this.#await(store.refresh().then(() => this.#runStep(() => this.#beginIngest(hello))));
  }

  /** Runs a step of the connection in a slice of work. */
  #runStep(step: () => void): Promise<void> {
    return this.#connection.runSlice(() => this.#connection.socket.run(step));
  }

  #await(work: Promise<void>): void {
    work.catch((error: unknown) => {
      if (!this.#connection.isFinished) this.#connection.fail(asFramesError(error, "store"));
    });
  }

  #beginIngest(hello: Hello): void {
    const { stream, session } = hello;
    const { store } = this.#server;
    const connection = this.#connection;
    const { key } = connection;
    store.checkSession?.({ session, ...defined({ key: key?.name, keyId: key?.key.id }) });
    this.#server.supersede(session, connection);
    this.#server.emit({
      type: "session",
      peer: connection.peer,
      stream,
      session,
      software: truncateMessage(hello.software ?? "unknown software"),
      key: key?.name,
    });
    const client = this.#welcome({ fresh: store.isStreamEmpty(stream) });
    this.#begin(new IngestRole(this.#server, connection, client), client);
  }

  async #beginPlayback(hello: Hello): Promise<void> {
    const playback = (this.#playback = new PlaybackRole(this.#server, this.#connection, hello));
    const fields = await playback.welcomeFields();
    await this.#runStep(() => this.#begin(playback, this.#welcome(fields)));
  }

  /** Lets the role continue, with what the client has sent after its handshake. */
  #begin(role: IngestRole | PlaybackRole, client: AdmittedClient): void {
    this.#connection.role = role;
    role.start(client);
    if (this.#connection.hasInputEnded) role.onEnd();
  }

  /** Sends WELCOME. */
  #welcome(fields: Partial<WelcomeFields>): AdmittedClient {
    const { store, grants } = this.#server;
    const location = { store: store.location, software };
    const client = this.#handshake.welcome(store, { ...grants, ...location, ...fields });
    this.transmit();
    return client;
  }

  stop(): void {
    this.#playback?.stop();
    this.#handshake.close();
  }

  async sendError(error: FramesError): Promise<void> {
    const { peer, socket } = this.#connection;
    const delayMs = error.code === "not-let-in" ? this.#server.authFailureDelayMs(peer) : 0;
    if (delayMs > 0) await Bun.sleep(delayMs);
    this.#handshake.fail(error);
    this.transmit();
    socket.finish();
  }

  /** Returns the error with the path of the key file, which an unknown peer does not get. */
  errorForLog(error: FramesError): FramesError {
    const path = this.#server.keys?.path;
    const hasKey = this.#handshake.hello?.key !== undefined;
    if (error.code !== "not-let-in" || !hasKey || path === undefined) return error;
    const hint = "run frames key here, and paste its output there into frames key save";
    return new FramesError(error.code, `refused: its key is not in ${path}; ${hint}`);
  }
}
