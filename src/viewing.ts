/** Shows over HTTP what a server receives: joins the two. */
import type { Certificate } from "./auth/certificate.ts";
import type { FramesError } from "./errors.ts";
import type { FrameStore } from "./frame.ts";
import type { Address } from "./net/address.ts";
import { serverTls } from "./net/tls.ts";
import type { ServeEvent } from "./server/serve-event.ts";
import type { KeptFrames } from "./store/kept.ts";
import { version } from "./version.ts";
import type { Access } from "./viewer/access.ts";
import { Exhibition } from "./viewer/exhibition.ts";
import { Live } from "./viewer/live.ts";
import { ObservedStore } from "./viewer/observed.ts";
import { ViewerServer } from "./viewer/server.ts";
import type { Arrivals } from "./store/arrivals.ts";

/** Port of the page where none is given. */
export const defaultHttpPort = 9727;

/** What a server tells of itself. */
export interface Viewed {
  readonly arrivals: Arrivals;
  readonly connections: number;
  readonly refusals: ReadonlyMap<string, number>;
}

export class Viewing {
  readonly #server: ViewerServer;
  readonly #live = new Live();
  #failure: FramesError | undefined;
  #unfollow: () => void = () => {};

  /** @throws {FramesError} `unreachable` if the address cannot be had */
  constructor(address: Address, access: Access, certificate?: Certificate) {
    const tls = certificate === undefined ? undefined : serverTls(certificate);
    this.#server = new ViewerServer(address, access, tls);
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
  watch(store: FrameStore): FrameStore {
    return new ObservedStore(store, this.#live);
  }

  /** From now on there is something to see. */
  show(viewed: Viewed, kept: KeptFrames): void {
    const failure = () => this.#failure;
    this.#unfollow = viewed.arrivals.follow(() => this.#live.flushed());
    const exhibition = new Exhibition({
      version,
      live: this.#live,
      kept,
      refusals: viewed.refusals,
      get connections() {
        return viewed.connections;
      },
      get failure() {
        return failure();
      },
      // In the executable the file lies below its root, as it does below this one here.
      makeConverter: () => {
        return new Worker(new URL("./viewer/conversion-worker.ts", import.meta.url).href);
      },
    });
    this.#server.show(exhibition);
  }

  /** Something happened. */
  told(event: ServeEvent): void {
    const { problems } = this.#live;
    switch (event.type) {
      case "session":
        return this.#live.connected(event);
      case "delivered":
        return this.#live.left(event.peer, event.session);
      case "failed": {
        const { peer, session, stream, error } = event;
        if (session !== undefined) this.#live.left(peer, session);
        return problems.add(error.code, `${peer}: ${error.message}`, stream);
      }
      case "refused": {
        const { peer, stream, source, frame, error } = event;
        const what = `${peer}: ${frame.name} (number ${frame.sequence}) was refused`;
        return problems.add(error.code, `${what}: ${error.message}`, stream, source);
      }
      case "lost": {
        const { peer, stream, source, frames, error } = event;
        const what = `${peer}: ${frames} ${frames === 1 ? "frame" : "frames"} could not be sent`;
        return problems.add(error.code, `${what}: ${error.message}`, stream, source);
      }
      case "keys":
        if (event.error === undefined) return;
        return problems.add(event.error.code, event.error.message);
      case "turned-away":
        return problems.add(
          "not-let-in",
          `${event.host} was turned away ${event.times} times more in a minute`,
        );
      case "removed":
        if (event.stuck === 0) return;
        return problems.add(
          "store",
          `The files of ${event.stuck} frames that are not to be kept cannot be removed`,
        );
      case "recovered":
      case "no-page":
    }
  }

  /** Whether frames can be stored, or why not. */
  stores(failure: FramesError | undefined): void {
    this.#failure = failure;
  }

  async stop(): Promise<void> {
    this.#unfollow();
    await this.#server.stop();
    this.#live.close();
  }
}
