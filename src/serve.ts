/** Receives frames: what programs call, and what they are told. */
import { FramesError } from "./errors.ts";
import { formatAddress, isLoopback, parseAddress } from "./net/address.ts";
import type { ServeEvent, StoredEvent } from "./reception.ts";
import { FrameServer, type Server } from "./server.ts";
import { DirectoryStore, systemNeedsPortableNames } from "./store/directory.ts";

/** How to serve. */
export interface ServeOptions {
  /** `HOST:PORT`; port 0 lets the system choose. Default `127.0.0.1:9726`. */
  readonly listen?: string;
  /** Lets anyone who reaches the port send frames: needed on any address but loopback. */
  readonly insecure?: boolean;
  /** Largest frame in bytes. Default 64 MiB. */
  readonly maxFrame?: number;
  /** Refuse names that Windows and macOS cannot keep; always so on these. */
  readonly portableNames?: boolean;
  /** Flush frames and journal to the disk before their receipt, for every sender. */
  readonly durable?: boolean;
  /** Bytes of the disk that are kept free. Default: 5 %, 10 GB at most. */
  readonly reserve?: number;
  /** Milliseconds after which a silent sender counts as gone. Default 30,000. */
  readonly timeout?: number;
  /** Is told what happens. */
  readonly onEvent?: (event: ServeEvent) => void;
  /** Is told of each frame that was stored; it lasts when its receipt is sent, a little later. */
  readonly onStored?: (stored: StoredEvent) => void;
}

const defaultMaxFrame = 64 << 20;
const defaultTimeout = 30_000;

/**
 * Serves a store in `directory`, which is made if it is not there.
 *
 * @throws {FramesError} `store`, `locked`, `unreachable` or `usage`
 *
 * @example
 * ```ts
 * import { send, serve } from "frames";
 *
 * const server = await serve("received", { listen: "127.0.0.1:0" });
 * const pictures = [{ name: "1.pgm", bytes: new TextEncoder().encode("P5 1 1 255\n!") }];
 * await send(pictures, { to: server.address, stream: "run7", source: "visible" });
 * await server.stop();
 * ```
 */
export async function serve(directory: string, options: ServeOptions = {}): Promise<Server> {
  const address = parseAddress(options.listen ?? "127.0.0.1:9726", "--listen");
  const { maxFrame = defaultMaxFrame, timeout = defaultTimeout } = options;
  if (!Number.isSafeInteger(maxFrame) || maxFrame < 1) {
    throw new FramesError("usage", `Cannot serve: the largest frame is ${maxFrame} bytes`);
  }
  if (!(timeout > 0)) throw new FramesError("usage", `Cannot serve: the timeout is ${timeout} ms`);
  if (!isLoopback(address.host) && options.insecure !== true) {
    throw new FramesError(
      "usage",
      `Cannot listen at ${formatAddress(address)}: this version has no keys yet, so anyone who reaches the port could send; where that is all right, say so with --insecure`,
    );
  }
  const portableNames = options.portableNames === true || systemNeedsPortableNames;
  const { durable = false, reserve, onEvent = () => {} } = options;
  const openStore = () => {
    const clock = Date.now;
    const store = new DirectoryStore(directory, { portableNames, durable, reserve, clock });
    const { unfinished, replaced } = store.recovery;
    if (unfinished + replaced > 0) onEvent({ type: "recovered", unfinished, replaced });
    return store;
  };
  return new FrameServer(address, openStore, {
    grants: {
      window: { bytes: 64 << 20, frames: 8192 },
      limits: { frame: maxFrame, sources: 10_000, unfinished: 16 },
    },
    timeout,
    onEvent,
    onStored: options.onStored,
  });
}
