/** `/events`: what is live, once a second, and what goes wrong, as it happens. */
import { jsonText } from "./answers.ts";
import type { Visitor } from "./access.ts";
import type { Asked } from "./asked.ts";
import type { Exhibition } from "./exhibition.ts";
import { bodyOf, type Outflow } from "./outflow.ts";
import type { Problem } from "./problems.ts";
import type { End } from "./viewers.ts";

const headers = { "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no" };

/** Problems that wait for one reader; of more the oldest go. */
const mostWaiting = 100;

/** @throws {FramesError} `full` */
export function eventsAnswer(asked: Asked, exhibition: Exhibition): Response {
  if (asked.request.method === "HEAD") return new Response(null, { headers });
  const viewer = asked.viewers.enter("events", asked.visitor);
  asked.mayTake(0);
  return new Response(bodyOf(viewer, new EventFlow(exhibition, asked.visitor)), { headers });
}

/** Whether somebody may hear of a problem. */
export function mayHear(visitor: Visitor, { stream, source }: Problem): boolean {
  if (visitor.seesAll) return true;
  return stream !== null && source !== null && visitor.maySee(stream, source);
}

class EventFlow implements Outflow {
  readonly #exhibition: Exhibition;
  readonly #visitor: Visitor;
  #problems: Problem[] = [];
  /** A state is due at once, and then once a second. */
  #isDue = true;
  #woken: (() => void) | undefined;
  readonly #endTick: () => void;
  readonly #endProblems: () => void;

  constructor(exhibition: Exhibition, visitor: Visitor) {
    this.#exhibition = exhibition;
    this.#visitor = visitor;
    const { live } = exhibition;
    this.#endTick = live.onTick(() => {
      this.#isDue = true;
      this.#wake();
    });
    this.#endProblems = live.problems.follow((problem) => {
      if (!mayHear(visitor, problem)) return;
      this.#problems = [...this.#problems, problem].slice(-mostWaiting);
      this.#wake();
    });
  }

  #wake(): void {
    this.#woken?.();
    this.#woken = undefined;
  }

  async next(): Promise<Uint8Array> {
    while (!this.#isDue && this.#problems.length === 0) {
      await new Promise<void>((resolve) => (this.#woken = resolve));
    }
    let text = this.#problems.map((problem) => eventText("problem", jsonText(problem))).join("");
    this.#problems = [];
    if (this.#isDue) {
      this.#isDue = false;
      // Sums that are not in step yet are in the next one.
      this.#exhibition.refresh().catch(() => {});
      text += eventText("state", this.#exhibition.states.textFor(this.#visitor));
    }
    return new TextEncoder().encode(text);
  }

  farewell(why: End): Uint8Array | undefined {
    return new TextEncoder().encode(eventText("bye", jsonText({ reason: why })));
  }

  close(): void {
    this.#endTick();
    this.#endProblems();
  }
}

/** JSON holds no line break, so that one line has it all. */
function eventText(name: string, data: string): string {
  return `event: ${name}\ndata: ${data}\n\n`;
}
