/** `/api`: streams, frames, gaps, senders and problems as JSON. */
import { FramesError } from "../errors.ts";
import type { KeptFrame, Place } from "../store/catalog.ts";
import type { GapPlace } from "../store/missing.ts";
import { json, missing } from "./answers.ts";
import { mayHear } from "./events.ts";
import type { Asked } from "./asked.ts";
import type { Exhibition } from "./exhibition.ts";
import { frameAddress, mediaType } from "./media.ts";

/** Entries of a list, if nothing else is asked for and at most. */
const usualLimit = 100;
const mostEntries = 500;

/** Sources whose nearest frame is told of one moment. */
const mostSources = 100;

/** The answer to `/api/…`, whose parts these are; nothing if there is no such list. */
export async function listAnswer(
  asked: Asked,
  exhibition: Exhibition,
  parts: readonly string[],
): Promise<Response | undefined> {
  const [list, stream, what, ...rest] = parts;
  if (rest.length > 0) return undefined;
  if (stream === undefined) {
    if (list === "server") return await serverAnswer(asked, exhibition);
    if (list === "streams") return await streamsAnswer(asked, exhibition);
    if (list === "senders") {
      return json({ senders: asked.visitor.seesAll ? exhibition.live.senders : [] });
    }
    if (list === "problems") {
      const { last } = exhibition.live.problems;
      return json({ problems: last.filter((problem) => mayHear(asked.visitor, problem)) });
    }
    return undefined;
  }
  if (list !== "streams") return undefined;
  if (!asked.visitor.maySee(stream)) throw missing(`There is no stream ${stream}`);
  if (what === undefined) return await streamAnswer(asked, exhibition, stream);
  if (what === "frames") return await framesAnswer(asked, exhibition, stream);
  if (what === "moment") return await momentAnswer(asked, exhibition, stream);
  if (what === "gaps") return await gapsAnswer(asked, exhibition, stream);
  return undefined;
}

async function serverAnswer({ visitor }: Asked, exhibition: Exhibition): Promise<Response> {
  await exhibition.refresh();
  const { started, states } = exhibition;
  const { version, connections } = exhibition.showing;
  const isOpen = visitor.seesAll;
  return json({
    version,
    started: BigInt(started.getTime()) * 1_000_000n,
    store: isOpen ? states.store() : null,
    connections: isOpen ? connections : null,
  });
}

async function streamsAnswer(asked: Asked, exhibition: Exhibition): Promise<Response> {
  await exhibition.refresh();
  const after = asked.url.searchParams.get("after");
  const limit = limitOf(asked);
  const names = exhibition.streams.filter(
    (name) => (after === null || name > after) && asked.visitor.maySee(name),
  );
  const listed = names.slice(0, limit);
  const streams = [];
  for (const name of listed) streams.push(await streamOf(asked, exhibition, name));
  return json({ streams, next: names.length > limit ? listed.at(-1) : null });
}

async function streamAnswer(asked: Asked, exhibition: Exhibition, name: string) {
  await exhibition.refresh();
  if (!exhibition.streams.includes(name)) throw missing(`There is no stream ${name}`);
  return json(await streamOf(asked, exhibition, name));
}

/** A stream with its sources. */
async function streamOf({ visitor }: Asked, exhibition: Exhibition, stream: string) {
  const { catalog, states, pause } = exhibition;
  const sources = [];
  for (const { source: name, frames, bytes, lost } of exhibition.sourcesOf(stream)) {
    if (!visitor.maySee(stream, name)) continue;
    if (sources.length % 50 === 49) await pause();
    sources.push({
      name,
      frames,
      bytes,
      lost,
      firstCaptured: catalog.oldest(stream, name)?.captured ?? null,
      lastCaptured: catalog.newest(stream, name)?.captured ?? null,
      live: states.liveOf(stream, name),
    });
  }
  return { name: stream, sources };
}

async function framesAnswer(asked: Asked, exhibition: Exhibition, stream: string) {
  const { catalog } = exhibition;
  const { searchParams } = asked.url;
  const source = searchParams.get("source");
  if (source === null) throw usage("Cannot list frames without ?source=");
  if (!asked.visitor.maySee(stream, source)) throw missing(`${stream} has no source ${source}`);
  const limit = limitOf(asked);
  const number = searchParams.get("number");
  if (number !== null) {
    const found = await catalog.withNumber(stream, source, wholeNumber(number), exhibition.pause);
    return json({ frames: found.slice(0, limit).map(frameOf), next: null });
  }
  const before = searchParams.get("before");
  if (before !== null) {
    const frames = catalog.before(stream, source, placeIn(before), limit);
    const isMore = frames.length === limit;
    return json({ frames: frames.map(frameOf), next: isMore ? cursorOf(frames[0]!) : null });
  }
  const after = searchParams.get("after");
  const place = after === null ? undefined : placeIn(after);
  const frames = catalog.behind(stream, source, place, limit + 1);
  const listed = frames.slice(0, limit);
  const isMore = frames.length > limit;
  return json({ frames: listed.map(frameOf), next: isMore ? cursorOf(listed.at(-1)!) : null });
}

async function momentAnswer(asked: Asked, exhibition: Exhibition, stream: string) {
  const { searchParams } = asked.url;
  const at = searchParams.get("at") ?? "";
  if (!/^-?\d{1,19}$/.test(at)) {
    throw usage("Cannot find that moment: ?at= is nanoseconds since 1970");
  }
  const time = BigInt.asIntN(64, BigInt(at));
  let names = searchParams.getAll("source");
  if (names.length === 0) {
    await exhibition.refresh();
    names = exhibition.sourcesOf(stream).map(({ source }) => source);
  }
  if (names.length > mostSources) names.length = mostSources;
  const frames = names
    .filter((source) => asked.visitor.maySee(stream, source))
    .map((source) => exhibition.catalog.nearest(stream, source, time))
    .filter((frame) => frame !== undefined);
  return json({ at, frames: frames.map(frameOf) });
}

async function gapsAnswer(asked: Asked, exhibition: Exhibition, stream: string) {
  const after = asked.url.searchParams.get("after");
  const limit = limitOf(asked);
  const behind = after === null ? undefined : gapPlaceIn(after);
  const wants = (source: string) => asked.visitor.maySee(stream, source);
  const found = await exhibition.missing.gaps(stream, wants, behind, limit + 1);
  const gaps = found.slice(0, limit).map(({ place: _, reason, ...gap }) => {
    return { ...gap, reason: reason ?? null };
  });
  const last = found.length > limit ? found[limit - 1] : undefined;
  const next =
    last === undefined ? null : Buffer.from(JSON.stringify(last.place)).toString("base64url");
  return json({ gaps, next });
}

/** A frame as JSON. */
export function frameOf(frame: KeptFrame) {
  const { stream, source, name, sequence, session, size, crc32, captured, received } = frame;
  return {
    stream,
    source,
    name,
    number: sequence,
    session,
    size,
    crc32: crc32.toString(16).padStart(8, "0"),
    captured,
    received,
    key: frame.key ?? null,
    metadata: metadataOf(frame.metadata),
    raw: frame.raw ?? null,
    type: mediaType(name, frame.raw),
    url: frameAddress(stream, source, name),
    cursor: cursorOf(frame),
  };
}

function metadataOf(text: string): unknown {
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function cursorOf({ captured, sequence, id }: Place): string {
  return `${captured}_${sequence}_${id}`;
}

function placeIn(cursor: string): Place {
  const [, captured, sequence, id] = /^(-?\d{1,19})_(\d{1,16})_(\d{1,16})$/.exec(cursor) ?? [];
  if (captured === undefined) throw usage("Cannot read the cursor: give one that an answer had");
  return {
    captured: BigInt.asIntN(64, BigInt(captured)),
    sequence: Number(sequence),
    id: Number(id),
  };
}

function gapPlaceIn(cursor: string): GapPlace {
  try {
    const place: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    if (!Array.isArray(place) || place.length !== 4) throw new Error("no place");
    const [source, began, session, first] = place as unknown[];
    if (
      [source, began, session].every((part) => typeof part === "string") &&
      Number.isInteger(first)
    ) {
      return place as unknown as GapPlace;
    }
  } catch {
    // It is said below.
  }
  throw usage("Cannot read the cursor: give one that an answer had");
}

function limitOf({ url }: Asked): number {
  const given = url.searchParams.get("limit");
  if (given === null) return usualLimit;
  const limit = wholeNumber(given);
  if (limit < 1) throw usage("Cannot list so few: ?limit= is 1 or more");
  return Math.min(limit, mostEntries);
}

/** @throws {FramesError} `usage` */
export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text))
    throw usage(`Cannot read ${JSON.stringify(text.slice(0, 50))}: expected a number`);
  return Number(text);
}

function usage(message: string): FramesError {
  return new FramesError("usage", message);
}
