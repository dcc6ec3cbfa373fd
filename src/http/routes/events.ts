/** `/events`: server-sent events with the status once a second, and problems as they happen. */
import { toJson } from "../responses.ts";
import type { Principal } from "../principal.ts";
import { type BodySource, Wakeup } from "../stream-body.ts";
import type { RouteRequest } from "./request.ts";
import { streamResponse } from "./stream-response.ts";
import type { Problem } from "../live/problem-log.ts";
import type { EndReason } from "../stream-clients.ts";

const headers = { "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no" };

/** Limit of problems queued for one client. At the limit the oldest is dropped. */
const maxQueuedProblems = 100;

/** @throws {FramesError} `full` if there are too many streaming clients, `stopping` */
export function handleEvents(req: RouteRequest): Response {
  return streamResponse(req, { kind: "events", headers }, () => new EventBody(req));
}

/** Returns whether the principal may read a problem. */
export function canReadProblem(principal: Principal, { stream, source }: Problem): boolean {
  if (principal.canReadAll) return true;
  return stream !== null && source !== null && principal.canRead(stream, source);
}

class EventBody implements BodySource {
  readonly #req: RouteRequest;
  #problems: Problem[] = [];
  /** The first status is sent immediately, then one per second. */
  #isStateDue = true;
  readonly #wakeup = new Wakeup();
  readonly #unsubscribeTick: () => void;
  readonly #unsubscribeProblems: () => void;

  constructor(req: RouteRequest) {
    this.#req = req;
    const { liveSources } = req.context;
    this.#unsubscribeTick = liveSources.onTick(() => {
      this.#isStateDue = true;
      this.#wakeup.notify();
    });
    this.#unsubscribeProblems = liveSources.problems.subscribe((problem) => {
      if (!canReadProblem(req.principal, problem)) return;
      this.#problems = [...this.#problems, problem].slice(-maxQueuedProblems);
      this.#wakeup.notify();
    });
  }

  async next(): Promise<Uint8Array> {
    while (!this.#isStateDue && this.#problems.length === 0) {
      await this.#wakeup.next();
    }
    let text = this.#problems.map((problem) => formatEvent("problem", toJson(problem))).join("");
    this.#problems = [];
    if (this.#isStateDue) {
      this.#isStateDue = false;
      const { context, principal, run } = this.#req;
      // Does not wait for the refresh: the next status contains the updated totals.
      context.refresh().catch(() => {});
      text += formatEvent("state", await run(() => context.status.jsonFor(principal)));
    }
    return new TextEncoder().encode(text);
  }

  closingBytes(reason: EndReason): Uint8Array | undefined {
    return new TextEncoder().encode(formatEvent("bye", toJson({ reason })));
  }

  close(): void {
    this.#unsubscribeTick();
    this.#unsubscribeProblems();
  }
}

/** JSON contains no line break, so one `data:` line is enough. */
function formatEvent(name: string, data: string): string {
  return `event: ${name}\ndata: ${data}\n\n`;
}
