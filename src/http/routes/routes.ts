/** Routes a request by its path. */
import { FramesError, usageError } from "../../errors.ts";
import type { FrameRecord } from "../../store/journal/journal-reader.ts";
import { printable } from "../../safe-text.ts";
import { HttpError, notFound, textResponse } from "../responses.ts";
import { handleEvents } from "./events.ts";
import type { StreamClient, StreamClientKind } from "../stream-clients.ts";
import type { RouteRequest, SocketHandler, SourceRequest } from "./request.ts";
import { frameResponse } from "./frame.ts";
import { handleApi, parseWholeNumber } from "./api.ts";
import { handleMetrics } from "./metrics.ts";
import { handleJpeg, handleMjpeg } from "./mjpeg.ts";
import { groupResponse, handleH264, handleH265 } from "./video.ts";
import { handlePageFile } from "./page-files.ts";
import { chooseSubprotocol, FoxgloveSocket, foxgloveSubprotocols } from "./foxglove-socket.ts";
import { LiveSocket } from "./live-socket.ts";

/** Size limit for serving the newest frame from memory. */
const maxInMemoryBytes = 1 << 20;

const textHeaders = { "Content-Type": "text/plain; charset=utf-8" };

type SourceHandler = (req: SourceRequest) => Promise<Response>;

type RootHandler = (req: RouteRequest) => Response | undefined | Promise<Response>;

/** Handlers of `/NAME`. */
export const rootRoutes: ReadonlyMap<string, RootHandler> = new Map<string, RootHandler>([
  ["healthz", () => textResponse("ok\n", 200, textHeaders)],
  ["readyz", handleReady],
  ["metrics", handleMetrics],
  ["events", handleEvents],
  ["live", handleLiveSocket],
  ["foxglove", handleFoxgloveSocket],
]);

/** Handlers of `/streams/S/sources/X/NAME`. */
export const sourceRoutes: ReadonlyMap<string, SourceHandler> = new Map([
  ["latest", handleLatest],
  ["latest.jpg", handleJpeg],
  ["latest.mjpeg", handleMjpeg],
  ["latest.h264", handleH264],
  ["latest.h265", handleH265],
]);

/** Addresses of one frame: `/streams/S/sources/X/NAME/ID`. */
export const frameRoutes: ReadonlySet<string> = new Set(["frames", "numbers"]);

/**
 * Returns the response, or undefined if the request became a WebSocket.
 *
 * @throws {FramesError} `missing` if there is no such path, or what a handler throws
 */
export async function route(req: RouteRequest): Promise<Response | undefined> {
  const parts = parsePath(req.url.pathname);
  const [first, ...rest] = parts;
  const handler = rest.length === 0 ? rootRoutes.get(first!) : undefined;
  if (handler !== undefined) return await handler(req);
  const response =
    first === "api"
      ? await handleApi(req, rest)
      : first === "streams"
        ? await handleSource(req, rest)
        : await handlePageFile(req.url.pathname, req.request);
  if (response !== undefined) return response;
  throw notFound(`Nothing was found at ${req.url.pathname.slice(0, 200)}`);
}

/**
 * Splits a path and percent-decodes each part.
 *
 * @throws {FramesError} `usage` if a part cannot be decoded
 */
function parsePath(path: string): string[] {
  try {
    return path.slice(1).split("/").map(decodeURIComponent);
  } catch (cause) {
    throw usageError("Cannot read the address: it is not percent-encoded", { cause });
  }
}

/** Shows the reason only to clients that may read everything, because it names server folders. */
function handleReady({ principal, context: { storeError } }: RouteRequest): Response {
  if (storeError === undefined) return textResponse("ok\n", 200, textHeaders);
  const reason = principal.canReadAll ? storeError.message : "The store cannot be written";
  return textResponse(`${printable(reason)}\n`, 503, textHeaders);
}

function handleLiveSocket(req: RouteRequest): Response | undefined {
  return upgrade(req, "page", (client) => new LiveSocket(client, req));
}

function handleFoxgloveSocket(req: RouteRequest): Response | undefined {
  const subprotocol = chooseSubprotocol(req.request.headers.get("Sec-WebSocket-Protocol"));
  if (subprotocol === undefined && isUpgrade(req)) {
    const known = foxgloveSubprotocols.join(" or ");
    throw usageError(`Cannot open the WebSocket: name the subprotocol ${known}`);
  }
  const stream = req.url.searchParams.get("stream") ?? undefined;
  const createSocket = (client: StreamClient) => new FoxgloveSocket(client, req, stream);
  return upgrade(req, "foxglove", createSocket, subprotocol);
}

function isUpgrade({ request }: RouteRequest): boolean {
  return request.headers.get("Upgrade")?.toLowerCase() === "websocket";
}

function upgrade(
  req: RouteRequest,
  kind: StreamClientKind,
  createHandler: (client: StreamClient) => SocketHandler,
  subprotocol?: string,
): Response | undefined {
  if (!isUpgrade(req)) {
    const message = "This address is for WebSocket only";
    throw new HttpError(426, "usage", message, { Upgrade: "websocket" });
  }
  const client = req.clients.add(kind, req.principal);
  if (req.upgrade(createHandler(client), subprotocol)) return undefined;
  client.end("left");
  throw usageError("The request for a WebSocket is incomplete");
}

/**
 * Handles `/streams/S/sources/X…/…`. A source may be named like an endpoint, so a frame is looked
 * up first.
 */
async function handleSource(
  req: RouteRequest,
  parts: readonly string[],
): Promise<Response | undefined> {
  const [stream, sources, ...rest] = parts;
  if (stream === undefined || sources !== "sources" || rest.length < 2) return undefined;
  const last = rest.at(-1)!;
  const beforeLast = rest.at(-2)!;
  let notFoundError: FramesError | undefined;
  if (rest.length > 2 && frameRoutes.has(beforeLast)) {
    try {
      const sourceReq = sourceRequest(req, stream, rest.slice(0, -2));
      const frame = await findFrame(sourceReq, beforeLast, last);
      if (req.url.searchParams.has("gop")) return await groupResponse(req, frame);
      return await frameResponse(req, { ...frame, frame });
    } catch (error) {
      if (!(error instanceof FramesError) || error.code !== "missing") throw error;
      notFoundError = error;
    }
  }
  const handler = sourceRoutes.get(last);
  if (handler !== undefined) return await handler(sourceRequest(req, stream, rest.slice(0, -1)));
  if (notFoundError !== undefined) throw notFoundError;
  return undefined;
}

/**
 * Returns the request for a source.
 *
 * @param parts of the source's name
 * @throws {FramesError} `missing` if the client may not read the source, as if it did not exist
 */
function sourceRequest(req: RouteRequest, stream: string, parts: readonly string[]): SourceRequest {
  const source = parts.join("/");
  if (!req.principal.canRead(stream, source)) throw notFound(`${stream} has no source ${source}`);
  return { ...req, stream, source };
}

async function findFrame(
  { url, run, context: { reader }, stream, source }: SourceRequest,
  lookup: string,
  id: string,
): Promise<FrameRecord> {
  if (lookup === "frames") {
    const found = reader.findByName(stream, source, id);
    if (found !== undefined) return found;
    throw notFound(`${source} of ${stream} has no frame ${JSON.stringify(id)}`);
  }
  const session = url.searchParams.get("session") ?? undefined;
  const wanted = { stream, source, number: parseWholeNumber(id), session };
  const [frame] = await reader.scanByNumber(wanted, 1, run);
  if (frame !== undefined) return frame;
  throw notFound(`${source} of ${stream} has no frame with number ${id}`);
}

/**
 * Responds with the newest frame, from memory if it is small.
 * For a source that is not live, responds with the stored frame captured last.
 */
async function handleLatest(req: SourceRequest): Promise<Response> {
  const { context, stream, source } = req;
  const stats = context.liveSources.get(stream, source);
  if (stats?.newest === undefined) {
    const frame = context.reader.newest(stream, source);
    if (frame === undefined) throw notFound(`${stream} has no source ${source}`);
    return await frameResponse(req, { ...frame, frame });
  }
  const isSmall = stats.newest.frame.size <= maxInMemoryBytes;
  const cached = isSmall ? await context.newestFrames.newest(stats) : undefined;
  const newest = cached?.newest ?? stats.newest;
  return await frameResponse(req, { stream, source, ...newest }, cached?.bytes);
}
