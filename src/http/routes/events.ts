/** `/events`: server-sent events with the status once a second, and problems as they happen. */
import type { RunSlice } from "../../frame.ts";
import { toJson } from "../responses.ts";
import type { Principal } from "../principal.ts";
import type { RouteRequest } from "../request.ts";
import type { HttpContext } from "../context.ts";
import { createBody, type BodySource } from "../stream-body.ts";
import type { Problem } from "../live/problem-log.ts";
import type { EndReason } from "../stream-clients.ts";

const headers = { "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no" };

/** Limit of problems queued for one client. At the limit the oldest is dropped. */
const maxQueuedProblems = 100;

/** @throws {FramesError} `full` if there are too many streaming clients, `stopping` */
export function handleEvents(req: RouteRequest, context: HttpContext): Response {
  if (req.request.method === "HEAD") return new Response(null, { headers });
  const client = req.clients.add("events", req.principal);
  req.setIdleTimeout(0);
  return new Response(createBody(client, new EventBody(context, req.principal, req.run)), {
    headers,
  });
}

/** Returns whether the principal may read a problem. */
export function canReadProblem(principal: Principal, { stream, source }: Problem): boolean {
  if (principal.canReadAll) return true;
  return stream !== null && source !== null && principal.canRead(stream, source);
}

class EventBody implements BodySource {
  readonly #context: HttpContext;
  readonly #principal: Principal;
  readonly #run: RunSlice;
  #problems: Problem[] = [];
  /** The first status is sent immediately, then one per second. */
  #isStateDue = true;
  #resolveWait: (() => void) | undefined;
  readonly #unsubscribeTick: () => void;
  readonly #unsubscribeProblems: () => void;

  constructor(context: HttpContext, principal: Principal, run: RunSlice) {
    this.#context = context;
    this.#principal = principal;
    this.#run = run;
    const { liveSources } = context;
    this.#unsubscribeTick = liveSources.onTick(() => {
      this.#isStateDue = true;
      this.#notify();
    });
    this.#unsubscribeProblems = liveSources.problems.subscribe((problem) => {
      if (!canReadProblem(principal, problem)) return;
      this.#problems = [...this.#problems, problem].slice(-maxQueuedProblems);
      this.#notify();
    });
  }

  #notify(): void {
    this.#resolveWait?.();
    this.#resolveWait = undefined;
  }

  async next(): Promise<Uint8Array> {
    while (!this.#isStateDue && this.#problems.length === 0) {
      await new Promise<void>((resolve) => (this.#resolveWait = resolve));
    }
    let text = this.#problems.map((problem) => formatEvent("problem", toJson(problem))).join("");
    this.#problems = [];
    if (this.#isStateDue) {
      this.#isStateDue = false;
      // Does not wait for the refresh: the next status contains the updated totals.
      this.#context.refresh().catch(() => {});
      const { status } = this.#context;
      text += formatEvent("state", await this.#run(() => status.jsonFor(this.#principal)));
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
