/** Who asks for what. */
import type { Visitor } from "./access.ts";
import type { PageSocket } from "./page-socket.ts";
import type { Viewers } from "./viewers.ts";

/** A request of somebody who was let in. */
export interface Asked {
  readonly request: Request;
  readonly url: URL;
  readonly visitor: Visitor;
  readonly viewers: Viewers;
  /** Whoever reads the answer may do nothing for so many seconds; 0 is for ever. */
  mayTake(seconds: number): void;
  /** Makes a WebSocket of it, if that is what was asked for. */
  becomesSocket(socket: PageSocket): boolean;
}
