/** Serves pages, the API and statistics over HTTP for a running frame server. */
import type { Certificate } from "../auth/certificate.ts";
import type { FramesError } from "../errors.ts";
import type { FrameStore } from "../frame.ts";
import type { Address } from "../net/address.ts";
import { serverTls } from "../net/tls.ts";
import type { ServeEvent } from "./serve-event.ts";
import type { StoreContents } from "../store/store-contents.ts";
import type { Authenticator } from "../http/auth/authenticator.ts";
import { HttpContext, type ServerInfo } from "../http/context.ts";
import { LiveSources } from "../http/live/live-sources.ts";
import { InstrumentedStore } from "../http/live/instrumented-store.ts";
import { HttpServer } from "../http/http-server.ts";
import type { CommitSignal } from "../store/journal/commit-signal.ts";

/** Default port of `--http`. */
export const defaultHttpPort = 9727;

// In the executable modules are files at the root, and the worker lies below it as below src.
const converterWorkerUrl = new URL(
  `${Bun.isStandaloneExecutable ? "./" : "../"}http/picture/converter-worker.ts`,
  import.meta.url,
).href;

export class HttpFrontend {
  readonly #server: HttpServer;
  readonly #live = new LiveSources();
  #storeError: FramesError | undefined;
  #unsubscribe: () => void = () => {};

  /** @throws {FramesError} `unreachable` if the address cannot be bound */
  constructor(address: Address, authenticator: Authenticator, certificate?: Certificate) {
    const tls = certificate === undefined ? undefined : serverTls(certificate);
    this.#server = new HttpServer(address, authenticator, tls);
  }

  /** `HOST:PORT` */
  get address(): string {
    return this.#server.address;
  }

  /** URL of the page for a browser on this machine. */
  get url(): string {
    return this.#server.url;
  }

  /** Wraps `store` so that the frames written to it are counted and shown. */
  instrument(store: FrameStore): FrameStore {
    return new InstrumentedStore(store, this.#live);
  }

  /** Starts to answer requests, because the store is open now. */
  attachStore(
    server: ServerInfo & { readonly commitSignal: CommitSignal },
    contents: StoreContents,
  ): void {
    this.#unsubscribe = server.commitSignal.subscribe(() => this.#live.onFlushed());
    const context = new HttpContext({
      server,
      liveSources: this.#live,
      contents,
      storeError: () => this.#storeError,
      createConverterWorker: () => new Worker(converterWorkerUrl),
    });
    this.#server.setContext(context);
  }

  /** Updates statistics and the list of problems from a server event. */
  onEvent(event: ServeEvent): void {
    const { problems } = this.#live;
    switch (event.type) {
      case "session":
        return this.#live.onConnected(event);
      case "delivered":
        return this.#live.onDelivered(event.peer, event.session);
      case "failed": {
        const { peer, session, stream, error } = event;
        if (session !== undefined) this.#live.onDisconnected(peer, session);
        // Its user knows, and nothing is wrong.
        if (error.code === "interrupted") return;
        return problems.add(error.code, `${peer}: ${error.message}`, stream);
      }
      case "refused": {
        const { peer, stream, source, frame, error } = event;
        const description = `${peer}: ${frame.name} (number ${frame.sequence}) was refused`;
        return problems.add(error.code, `${description}: ${error.message}`, stream, source);
      }
      case "lost": {
        const { peer, stream, source, frames, error } = event;
        const description = `${peer}: ${frames} ${frames === 1 ? "frame" : "frames"} could not be sent`;
        return problems.add(error.code, `${description}: ${error.message}`, stream, source);
      }
      case "keys":
        if (event.error === undefined) return;
        return problems.add(event.error.code, event.error.message);
      case "peers-rejected":
        return problems.add(
          "not-let-in",
          `${event.host} was refused ${event.count} more times within a minute`,
        );
      case "removed":
        if (event.passedOver > 0) {
          const count = `${event.passedOver} ${event.passedOver === 1 ? "frame was" : "frames were"}`;
          problems.add("timeout", `${count} removed (--keep) before a slow receiver had them`);
        }
        if (event.undeletable === 0) return;
        return problems.add(
          "store",
          `Cannot delete the files of ${event.undeletable} expired frames (--keep); check their permissions`,
        );
      case "recovered":
      case "no-page":
    }
  }

  /** Sets the error that keeps frames from being stored; undefined if storing works. */
  setStoreError(error: FramesError | undefined): void {
    this.#storeError = error;
  }

  async stop(): Promise<void> {
    this.#unsubscribe();
    await this.#server.stop();
    this.#live.close();
  }
}
