/** What is to be seen, and who asks to see it. */
import type { Catalog } from "../store/catalog.ts";
import type { Visitor } from "./access.ts";
import type { LiveSocket } from "./live-socket.ts";
import type { Viewers } from "./viewers.ts";

/** A request of somebody who was let in. */
export interface Asked {
  readonly request: Request;
  readonly url: URL;
  readonly visitor: Visitor;
  readonly viewers: Viewers;
  /** The answer may take as long as whoever reads it takes. */
  takesLong(): void;
  /** Makes a WebSocket of it, if that is what was asked for. */
  becomesSocket(view: LiveSocket): boolean;
}

/** Everything that a server shows. */
export interface Exhibition {
  /** For people: where the frames lie. */
  readonly place: string;
  readonly catalog: Catalog;
  close(): void;
}
