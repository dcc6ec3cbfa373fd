/** `/api`: streams, frames, gaps, senders and problems as JSON. */
import { usageError } from "../../errors.ts";
import type { RunSlice } from "../../frame.ts";
import type { SourceTotal } from "../../store/journal/source-totals.ts";
import type { GapPosition } from "../../store/journal/gap-index.ts";
import { jsonResponse, jsonTextResponse, notFound, toJson } from "../responses.ts";
import { canReadProblem } from "./events.ts";
import { handleDensity } from "./density.ts";
import { handleExport } from "./export.ts";
import { formatCursor, frameJson, parseCursor } from "./frame-json.ts";
import { handlePause } from "./pause.ts";
import type { RouteRequest, StreamRequest } from "./request.ts";
import { version } from "../../version.ts";

/** Entries per list: default and maximum of `?limit=`. */
const defaultLimit = 100;
const maxLimit = 500;

/** Limit of sources in one list. A stream with more says how many others it has. */
const maxListedSources = 1000;

/** Items of a list made in one slice of work. */
const itemsPerSlice = 50;

/** Limit of sources in one `moment` response. */
const maxMomentSources = 100;

type Handler = (req: RouteRequest) => Response | Promise<Response>;

/** Handlers of `/api/NAME`. */
export const apiRoutes: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ["server", handleServer],
  ["streams", handleStreams],
  ["senders", handleSenders],
  ["problems", handleProblems],
]);

type StreamHandler = (req: StreamRequest) => Promise<Response>;

/** Handlers of `/api/streams/S/NAME`. */
export const streamRoutes: ReadonlyMap<string, StreamHandler> = new Map([
  ["frames", handleFrames],
  ["moment", handleMoment],
  ["gaps", handleGaps],
  ["density", handleDensity],
  ["pause", handlePause],
  ["export.mcap", handleExport],
]);

/**
 * Handles `/api/…`. Returns undefined if there is no such resource.
 *
 * @param parts decoded path parts after `/api`
 */
export async function handleApi(
  req: RouteRequest,
  parts: readonly string[],
): Promise<Response | undefined> {
  const [resource = "", stream, subresource, ...rest] = parts;
  if (rest.length > 0) return undefined;
  if (stream === undefined) return await apiRoutes.get(resource)?.(req);
  if (resource !== "streams") return undefined;
  if (!req.principal.canRead(stream)) throw notFound(`There is no stream ${stream}`);
  const streamReq = { ...req, stream };
  if (subresource === undefined) return await handleStream(streamReq);
  return await streamRoutes.get(subresource)?.(streamReq);
}

function handleSenders({ principal, context: { liveSources } }: RouteRequest): Response {
  return jsonResponse({ senders: principal.canReadAll ? liveSources.senders : [] });
}

function handleProblems({ principal, context }: RouteRequest): Response {
  const { recent } = context.liveSources.problems;
  return jsonResponse({ problems: recent.filter((problem) => canReadProblem(principal, problem)) });
}

async function handleServer({ principal, context }: RouteRequest): Promise<Response> {
  await context.refresh();
  const { started, status } = context;
  const canReadAll = principal.canReadAll;
  return jsonResponse({
    version,
    started: BigInt(started.getTime()) * 1_000_000n,
    store: canReadAll ? status.storeStatus() : null,
    connections: canReadAll ? context.server.connections : null,
  });
}

async function handleStreams(req: RouteRequest): Promise<Response> {
  const { context } = req;
  await context.refresh();
  const after = req.url.searchParams.get("after");
  const limit = parseLimit(req);
  const names = await req.run(() =>
    context.streams.filter(
      (name) => (after === null || name > after) && req.principal.canRead(name),
    ),
  );
  const streams: string[] = [];
  let sourceCount = 0;
  for (const name of names.slice(0, limit)) {
    if (sourceCount >= maxListedSources) break;
    const stream = await streamJson({ ...req, stream: name });
    streams.push(stream.json);
    sourceCount += stream.sourceCount;
  }
  const next = names.length > streams.length ? names[streams.length - 1]! : null;
  return jsonTextResponse(`{"streams":[${streams.join(",")}],"next":${toJson(next)}}`);
}

async function handleStream(req: StreamRequest) {
  const { context, stream } = req;
  await context.refresh();
  if (!context.streams.includes(stream)) throw notFound(`There is no stream ${stream}`);
  return jsonTextResponse((await streamJson(req)).json);
}

/**
 * Describes a stream and those of its sources that the client may read, as JSON. Each
 * source becomes text at once, because a hundred lists of objects would take much memory.
 */
async function streamJson({ principal, run, context, stream }: StreamRequest) {
  const { reader, status } = context;
  const totals = await run(() =>
    context.sourcesOf(stream).filter(({ source }) => principal.canRead(stream, source)),
  );
  const sourceJson = ({ source: name, frames, bytes, lost }: SourceTotal) =>
    toJson({
      name,
      frames,
      bytes,
      lost,
      firstCaptured: reader.oldest(stream, name)?.captured ?? null,
      lastCaptured: reader.newest(stream, name)?.captured ?? null,
      live: status.liveSourceState(stream, name),
    });
  const listed = totals.slice(0, maxListedSources);
  const sources = await mapInSlices(listed, sourceJson, run);
  const otherCount = totals.length - listed.length;
  const others = otherCount > 0 ? `,"otherSources":${otherCount}` : "";
  const json = `{"name":${toJson(stream)},"sources":[${sources.join(",")}]${others}}`;
  return { json, sourceCount: listed.length };
}

/** Maps a list, a few look-ups in the journal for each item, in slices of work. */
async function mapInSlices<T, U>(
  items: readonly T[],
  map: (item: T) => U,
  run: RunSlice,
): Promise<U[]> {
  const results: U[] = [];
  while (results.length < items.length) {
    const next = items.slice(results.length, results.length + itemsPerSlice);
    results.push(...(await run(() => next.map(map))));
  }
  return results;
}

async function handleFrames(req: StreamRequest) {
  const { stream } = req;
  const { reader } = req.context;
  const { searchParams } = req.url;
  const source = searchParams.get("source");
  if (source === null) throw usageError("Cannot list frames without a source: add ?source=NAME");
  if (!req.principal.canRead(stream, source)) throw notFound(`${stream} has no source ${source}`);
  const limit = parseLimit(req);
  const number = searchParams.get("number");
  if (number !== null) {
    const lookup = { stream, source, number: parseWholeNumber(number) };
    const found = await reader.scanByNumber(lookup, limit, req.run);
    return jsonResponse({ frames: found.map(frameJson), next: null });
  }
  const before = searchParams.get("before");
  if (before !== null) {
    const position = parseCursor(before);
    const frames = await req.run(() => reader.framesBefore(stream, source, position, limit));
    const isMore = frames.length === limit;
    return jsonResponse({
      frames: frames.map(frameJson),
      next: isMore ? formatCursor(frames[0]!) : null,
    });
  }
  const after = searchParams.get("after");
  const position = after === null ? undefined : parseCursor(after);
  const frames = await req.run(() => reader.framesAfter(stream, source, position, limit + 1));
  const listed = frames.slice(0, limit);
  const isMore = frames.length > limit;
  return jsonResponse({
    frames: listed.map(frameJson),
    next: isMore ? formatCursor(listed.at(-1)!) : null,
  });
}

async function handleMoment(req: StreamRequest) {
  const { context, stream } = req;
  const { searchParams } = req.url;
  const at = searchParams.get("at") ?? "";
  if (!/^-?\d{1,19}$/.test(at)) {
    throw usageError("Cannot find the moment: expected ?at= in nanoseconds since 1970");
  }
  const time = BigInt.asIntN(64, BigInt(at));
  let names = searchParams.getAll("source");
  if (names.length === 0) {
    await context.refresh();
    names = context.sourcesOf(stream).map(({ source }) => source);
  }
  if (names.length > maxMomentSources) names.length = maxMomentSources;
  const readable = names.filter((source) => req.principal.canRead(stream, source));
  const nearest = (source: string) => context.reader.nearest(stream, source, time);
  const found = await mapInSlices(readable, nearest, req.run);
  const frames = found.filter((frame) => frame !== undefined);
  return jsonResponse({ at, frames: frames.map(frameJson) });
}

async function handleGaps(req: StreamRequest) {
  const { context, stream } = req;
  const after = req.url.searchParams.get("after");
  const limit = parseLimit(req);
  const position = after === null ? undefined : parseGapCursor(after);
  const canRead = (source: string) => req.principal.canRead(stream, source);
  const found = await context.gapIndex.gaps(stream, canRead, position, limit + 1);
  const gaps = found.slice(0, limit).map(({ position: _, reason, ...gap }) => {
    return { ...gap, reason: reason ?? null };
  });
  const last = found.length > limit ? found[limit - 1] : undefined;
  const next =
    last === undefined ? null : Buffer.from(JSON.stringify(last.position)).toString("base64url");
  return jsonResponse({ gaps, next });
}

function parseGapCursor(cursor: string): GapPosition {
  try {
    const position: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    if (!Array.isArray(position) || position.length !== 5) throw new Error("no place");
    const [source, sessionStarted, session, ...numbers] = position as unknown[];
    if (
      [source, sessionStarted, session].every((part) => typeof part === "string") &&
      numbers.every(Number.isInteger)
    ) {
      return position as unknown as GapPosition;
    }
  } catch {
    // Throws the same error as for a cursor of the wrong form, below.
  }
  throw usageError("Cannot read the cursor: use one from an earlier answer");
}

function parseLimit({ url }: RouteRequest): number {
  const text = url.searchParams.get("limit");
  if (text === null) return defaultLimit;
  const limit = parseWholeNumber(text);
  if (limit < 1) throw usageError("Cannot read ?limit=: expected 1 or more");
  return Math.min(limit, maxLimit);
}

/** @throws {FramesError} `usage` if the text is no whole number of up to 15 digits */
export function parseWholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text))
    throw usageError(`Cannot read ${JSON.stringify(text.slice(0, 50))}: expected a number`);
  return Number(text);
}
