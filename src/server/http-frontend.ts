/** Shows over HTTP what a server receives: joins the two. */
import type { Certificate } from "../auth/certificate.ts";
import type { FramesError } from "../errors.ts";
import type { FrameStore } from "../frame.ts";
import type { Address } from "../net/address.ts";
import { serverTls } from "../net/tls.ts";
import type { ServeEvent } from "./serve-event.ts";
import type { StoreContents } from "../store/store-contents.ts";
import { version } from "../version.ts";
import type { AccessControl } from "../http/auth/access.ts";
import { HttpContext } from "../http/context.ts";
import { LiveSources } from "../http/live/live-sources.ts";
import { InstrumentedStore } from "../http/live/instrumented-store.ts";
import { HttpServer } from "../http/http-server.ts";
import type { CommitSignal } from "../store/journal/commit-signal.ts";

/** Port of the page where none is given. */
export const defaultHttpPort = 9727;

/** What a server tells of itself. */
export interface ServerStats {
  readonly commitSignal: CommitSignal;
  readonly connections: number;
  readonly refusals: ReadonlyMap<string, number>;
}

export class HttpFrontend {
  readonly #server: HttpServer;
  readonly #live = new LiveSources();
  #storeError: FramesError | undefined;
  #unsubscribe: () => void = () => {};

  /** @throws {FramesError} `unreachable` if the address cannot be had */
  constructor(address: Address, authenticator: AccessControl, certificate?: Certificate) {
    const tls = certificate === undefined ? undefined : serverTls(certificate);
    this.#server = new HttpServer(address, authenticator, tls);
  }

  /** `HOST:PORT` */
  get address(): string {
    return this.#server.address;
  }

  /** Where a browser of this machine sees it. */
  get url(): string {
    return this.#server.url;
  }

  /** The same store; what is put into it is seen from now on. */
  instrument(store: FrameStore): FrameStore {
    return new InstrumentedStore(store, this.#live);
  }

  /** From now on there is something to see. */
  attachStore(serverStats: ServerStats, contents: StoreContents): void {
    const storeError = () => this.#storeError;
    this.#unsubscribe = serverStats.commitSignal.subscribe(() => this.#live.onFlushed());
    const context = new HttpContext({
      version,
      liveSources: this.#live,
      contents,
      refusals: serverStats.refusals,
      get connections() {
        return serverStats.connections;
      },
      get storeError() {
        return storeError();
      },
      // In the executable the file lies below its root, as it does below this one here.
      createConverterWorker: () => {
        return new Worker(new URL("../http/picture/converter-worker.ts", import.meta.url).href);
      },
    });
    this.#server.setContext(context);
  }

  /** Something happened. */
  onEvent(event: ServeEvent): void {
    const { problems } = this.#live;
    switch (event.type) {
      case "session":
        return this.#live.onConnected(event);
      case "delivered":
        return this.#live.onDisconnected(event.peer, event.session);
      case "failed": {
        const { peer, session, stream, error } = event;
        if (session !== undefined) this.#live.onDisconnected(peer, session);
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
          `${event.host} was turned away ${event.count} times more in a minute`,
        );
      case "removed":
        if (event.undeletable === 0) return;
        return problems.add(
          "store",
          `The files of ${event.undeletable} frames that are not to be kept cannot be removed`,
        );
      case "recovered":
      case "no-page":
    }
  }

  /** Whether frames can be stored, or why not. */
  setStoreError(error: FramesError | undefined): void {
    this.#storeError = error;
  }

  async stop(): Promise<void> {
    this.#unsubscribe();
    await this.#server.stop();
    this.#live.close();
  }
}
