/** Which address is answered by whom. */
import { FramesError } from "../errors.ts";
import type { KeptFrame } from "../store/catalog.ts";
import { missing, refusal } from "./answers.ts";
import { eventsAnswer } from "./events.ts";
import type { Asked } from "./asked.ts";
import type { Exhibition } from "./exhibition.ts";
import { frameAnswer } from "./frame-answers.ts";
import { listAnswer, wholeNumber } from "./listing.ts";
import { metricsAnswer } from "./metrics.ts";
import { mjpegAnswer } from "./mjpeg.ts";
import { pageFile } from "./page-files.ts";
import { PageSocket } from "./page-socket.ts";

/** Frames of up to so many bytes are answered from memory, when they are the newest. */
const smallBytes = 1 << 20;

/** The answer, or nothing to a request that became a WebSocket. */
export async function answerTo(
  asked: Asked,
  exhibition: Exhibition,
): Promise<Response | undefined> {
  const parts = partsOf(asked.url.pathname);
  const [first, ...rest] = parts;
  if (rest.length === 0) {
    if (first === "healthz") return textAnswer("ok\n");
    if (first === "readyz") return readyAnswer(asked, exhibition);
    if (first === "metrics") return await metricsAnswer(asked, exhibition);
    if (first === "events") return eventsAnswer(asked, exhibition);
    if (first === "live") return socketAnswer(asked, exhibition);
  }
  const answer =
    first === "api"
      ? await listAnswer(asked, exhibition, rest)
      : first === "streams"
        ? await frameOrFailure(asked, exhibition, rest)
        : await pageFile(asked.url.pathname, asked.request);
  if (answer !== undefined) return answer;
  throw missing(`There is nothing at ${asked.url.pathname.slice(0, 200)}`);
}

/**
 * The parts of a path, each decoded by itself.
 *
 * @throws {FramesError} `usage` if it cannot be decoded
 */
function partsOf(path: string): string[] {
  try {
    return path.slice(1).split("/").map(decodeURIComponent);
  } catch (cause) {
    throw new FramesError("usage", "Cannot read the address: it is not percent-encoded", { cause });
  }
}

function textAnswer(text: string, status = 200): Response {
  return new Response(text, { status, headers: { "Content-Type": "text/plain; charset=utf-8" } });
}

/** Why not is for those who may see what belongs to no stream: it names the server's folders. */
function readyAnswer({ visitor }: Asked, { failure }: Exhibition): Response {
  if (failure === undefined) return textAnswer("ok\n");
  const why = visitor.seesAll ? failure.message : "Frames cannot be stored";
  return textAnswer(`${why}\n`, 503);
}

function socketAnswer(asked: Asked, exhibition: Exhibition): Response | undefined {
  if (asked.request.headers.get("Upgrade")?.toLowerCase() !== "websocket") {
    return refusal(426, "usage", "This address speaks WebSocket", { Upgrade: "websocket" });
  }
  const viewer = asked.viewers.enter("page", asked.visitor);
  if (asked.becomesSocket(new PageSocket(exhibition, viewer, asked.visitor))) return undefined;
  viewer.end("left");
  return refusal(400, "usage", "The request for a WebSocket is not whole");
}

/** Of `S/sources/X…/what…`: a source may be called like what is asked of one. */
async function frameOrFailure(
  asked: Asked,
  exhibition: Exhibition,
  parts: readonly string[],
): Promise<Response | undefined> {
  const [stream, sources, ...rest] = parts;
  if (stream === undefined || sources !== "sources" || rest.length < 2) return undefined;
  const last = rest.at(-1)!;
  const beforeLast = rest.at(-2)!;
  let failure: FramesError | undefined;
  if (rest.length > 2 && (beforeLast === "frames" || beforeLast === "numbers")) {
    const source = rest.slice(0, -2).join("/");
    try {
      checkVisible(asked, stream, source);
      const frame = await keptFrame(asked, exhibition, stream, source, beforeLast, last);
      return await frameAnswer(asked, exhibition, { ...frame, frame });
    } catch (error) {
      if (!(error instanceof FramesError) || error.code !== "missing") throw error;
      failure = error;
    }
  }
  const source = rest.slice(0, -1).join("/");
  if (last === "latest" || last === "latest.mjpeg") {
    checkVisible(asked, stream, source);
    if (last === "latest") return await latestAnswer(asked, exhibition, stream, source);
    return await mjpegAnswer(asked, exhibition, stream, source);
  }
  if (failure !== undefined) throw failure;
  return undefined;
}

/** What somebody may not see is not there. */
function checkVisible({ visitor }: Asked, stream: string, source: string): void {
  if (!visitor.maySee(stream, source)) throw missing(`${stream} has no source ${source}`);
}

async function keptFrame(
  { url }: Asked,
  { catalog, pause }: Exhibition,
  stream: string,
  source: string,
  what: string,
  which: string,
): Promise<KeptFrame> {
  if (what === "frames") {
    const found = catalog.named(stream, source, which);
    if (found !== undefined) return found;
    throw missing(`${source} of ${stream} has no frame ${JSON.stringify(which)}`);
  }
  const session = url.searchParams.get("session");
  const found = await catalog.withNumber(stream, source, wholeNumber(which), pause);
  const frame = found.find((one) => session === null || one.session === session);
  if (frame !== undefined) return frame;
  throw missing(`${source} of ${stream} has no frame with number ${which}`);
}

/** The frame that came last, from memory if it is not large; of a source that is not live the last one stored. */
async function latestAnswer(
  asked: Asked,
  exhibition: Exhibition,
  stream: string,
  source: string,
): Promise<Response> {
  const feed = exhibition.live.feed(stream, source);
  if (feed?.newest === undefined) {
    const frame = exhibition.catalog.newest(stream, source);
    if (frame === undefined) throw missing(`${stream} has no source ${source}`);
    return await frameAnswer(asked, exhibition, { ...frame, frame });
  }
  const isSmall = feed.newest.frame.size <= smallBytes;
  const copy = isSmall ? await exhibition.copies.newest(feed) : undefined;
  const newest = copy?.newest ?? feed.newest;
  return await frameAnswer(asked, exhibition, { stream, source, ...newest }, copy?.bytes);
}
