/** Shows over HTTP what a server receives: joins the two. */
import type { Certificate } from "./auth/certificate.ts";
import type { FramesError } from "./errors.ts";
import type { FrameStore } from "./frame.ts";
import type { Address } from "./net/address.ts";
import { serverTls } from "./net/tls.ts";
import type { ServeEvent } from "./serve-event.ts";
import type { KeptFrames } from "./store/kept.ts";
import type { Access } from "./viewer/access.ts";
import { ViewerServer } from "./viewer/server.ts";

/** Port of the page where none is given. */
export const defaultHttpPort = 9727;

/** What a server tells of itself. */
export interface Viewed {
  readonly connections: number;
}

export class Viewing {
  readonly #server: ViewerServer;

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
    return store;
  }

  /** From now on there is something to see. */
  show(_viewed: Viewed, kept: KeptFrames): void {
    const catalog = kept.openCatalog();
    this.#server.show({ place: kept.place, catalog, close: () => catalog.close() });
  }

  /** Something happened. */
  told(_event: ServeEvent): void {}

  /** Whether frames can be stored, or why not. */
  stores(_failure: FramesError | undefined): void {}

  async stop(): Promise<void> {
    await this.#server.stop();
  }
}
