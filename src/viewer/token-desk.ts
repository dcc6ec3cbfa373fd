/** `/api/tokens`: makes, lists and revokes the tokens of a key. */
import { FramesError } from "../errors.ts";
import type { Caller, Holder, ViewerKey } from "./access.ts";
import { failure, json, refusal } from "./answers.ts";
import { readBody } from "./body.ts";
import type { Random } from "./secrets.ts";
import { latestPath, type Token, Tokens } from "./tokens.ts";

/** How many hours a token lasts: where nothing is said, and at most. */
const usualHours = 24;
const mostHours = 30 * 24;

/** Which source is to be seen. */
interface Wanted {
  readonly stream: string;
  readonly source: string;
  readonly hours: number;
}

export class TokenDesk {
  readonly #isTls: boolean;
  readonly #tokens: Tokens;

  constructor(isTls: boolean, random: Random) {
    this.#isTls = isTls;
    this.#tokens = new Tokens(random);
  }

  /** The token of this text, if it holds. */
  find(text: string, now: number): Token | undefined {
    return this.#tokens.find(text, now);
  }

  look(now: number, isHeld: (key: ViewerKey) => boolean): void {
    this.#tokens.look(now, isHeld);
  }

  /** Answers whoever has a key. */
  answer(caller: Caller, { key }: Holder): Response | Promise<Response> {
    const id = idIn(caller);
    switch (caller.request.method) {
      case "POST":
        return id === undefined ? this.#make(caller, key) : notHere("DELETE");
      case "DELETE":
        return id === undefined ? notHere("GET, HEAD, POST") : this.#revoke(id, key);
      default:
        return id === undefined ? this.#list(key, caller.now) : notHere("DELETE");
    }
  }

  /** Answers where nobody needs a token. */
  open(caller: Caller): Response | Promise<Response> {
    const { method } = caller.request;
    if (idIn(caller) !== undefined) return method === "DELETE" ? noToken() : notHere("DELETE");
    if (method === "DELETE") return notHere("GET, HEAD, POST");
    if (method !== "POST") return json({ tokens: [], next: null });
    return this.#address(caller);
  }

  async #make(caller: Caller, key: ViewerKey): Promise<Response> {
    const wanted = await readWanted(caller.request);
    if (wanted instanceof Response) return wanted;
    const { stream, source, hours } = wanted;
    // Whether there is such a stream is not looked at, and so not said.
    if (!key.allows(stream)) {
      return refusal(403, "wrong-stream", "The key is not for this stream: log in with another");
    }
    try {
      const created = caller.now;
      const expires = created + hours * 3_600_000;
      const { token, text } = this.#tokens.make({ stream, source, key, created, expires });
      const address = `${this.#addressOf(caller, wanted)}?token=${text}`;
      return json({ id: token.id, address, expires: inNanoseconds(expires) }, 201);
    } catch (error) {
      if (error instanceof FramesError && error.code === "full") {
        return refusal(429, error.code, error.message);
      }
      return failure(error);
    }
  }

  async #address(caller: Caller): Promise<Response> {
    const wanted = await readWanted(caller.request);
    if (wanted instanceof Response) return wanted;
    return json({ id: null, address: this.#addressOf(caller, wanted), expires: null });
  }

  #list(key: ViewerKey, now: number): Response {
    const tokens = this.#tokens.of(key, now).map(({ id, stream, source, created, expires }) => ({
      id,
      stream,
      source,
      created: inNanoseconds(created),
      expires: inNanoseconds(expires),
    }));
    return json({ tokens, next: null });
  }

  #revoke(id: string, key: ViewerKey): Response {
    return this.#tokens.revoke(id, key) ? new Response(null, { status: 204 }) : noToken();
  }

  /** As whoever asks reaches this server; something in front of it may speak TLS. */
  #addressOf({ request }: Caller, { stream, source }: Wanted): string {
    const isTls = this.#isTls || request.headers.get("origin")?.startsWith("https:") === true;
    const host = request.headers.get("host")!;
    return `${isTls ? "https" : "http"}://${host}${latestPath(stream, source, "latest.mjpeg")}`;
  }
}

async function readWanted(request: Request): Promise<Wanted | Response> {
  const body = await readBody(request);
  if (body instanceof Response) return body;
  const { stream, source, hours = usualHours } = body;
  if (!isName(stream, 255) || !isName(source, 1024)) {
    return refusal(400, "usage", 'Cannot make a token: the body is {"stream", "source", "hours"}');
  }
  if (typeof hours !== "number" || !(hours > 0 && hours <= mostHours)) {
    return refusal(400, "usage", `Cannot make a token: hours are more than 0, up to ${mostHours}`);
  }
  return { stream, source, hours };
}

/** Whether this can be the name of a stream or source; the address of one that is none shows nothing. */
function isName(value: unknown, most: number): value is string {
  return (
    typeof value === "string" &&
    value.isWellFormed() &&
    Buffer.byteLength(value) <= most &&
    value.split("/").every((part) => part !== "" && !part.startsWith("."))
  );
}

/** What follows `/api/tokens/`; nothing where nothing does. */
function idIn({ url }: Caller): string | undefined {
  return url.pathname.split("/")[3] || undefined;
}

function inNanoseconds(milliseconds: number): bigint {
  return BigInt(Math.round(milliseconds)) * 1_000_000n;
}

function notHere(Allow: string): Response {
  return refusal(405, "usage", `That address answers to ${Allow}`, { Allow });
}

function noToken(): Response {
  return refusal(404, "missing", "There is no such token of this key: GET /api/tokens lists them");
}
