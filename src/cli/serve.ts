/** `frames serve`. */
import { FramesError } from "../errors.ts";
import { formatAddress, isLoopback, ownAddresses, parseAddress } from "../net/address.ts";
import type { ServeEvent, StoredEvent } from "../reception.ts";
import { defaultKeyFile, firstKey } from "../keys.ts";
import { asksForKeys, asksViewersForKeys, serve, type ServeOptions } from "../serve.ts";
import type { Server } from "../server.ts";
import { version } from "../version.ts";
import type { Arguments } from "./arguments.ts";
import { keyOptions } from "./key.ts";
import { say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount, parseKeep } from "./units.ts";

/** Where the page is, unless something else is asked for. */
const defaultHttp = "127.0.0.1:9727";

/** Refused frames of one delivery that are named one by one. */
const mostNamed = 10;

/** Serves until `stop` is aborted. */
export async function serveCommand(
  given: Arguments,
  terminal: Terminal,
  stop: AbortSignal,
): Promise<number> {
  const [directory = "received", ...rest] = given.positionals;
  if (rest.length > 0) {
    throw new FramesError("usage", `Cannot serve a second directory, ${rest[0]}: one is the limit`);
  }
  const json = given.isOn("json");
  const quiet = given.isOn("quiet");
  const refusals = new Map<string, number>();
  const report = (event: ServeEvent) => {
    if (json) return sayJson(terminal, eventJson(event));
    if (event.type === "refused") {
      const refused = (refusals.get(event.peer) ?? 0) + 1;
      refusals.set(event.peer, refused);
      // The sender lists them all; here a few show what is wrong.
      if (refused > mostNamed) return;
    } else if (event.type === "delivered" || event.type === "failed") {
      refusals.delete(event.peer);
    }
    if (!quiet || event.type === "failed" || event.type === "turned-away")
      say(terminal, `${now()} ${eventText(event)}`);
  };
  const maxFrame = given.size("max-frame");
  const reserve = given.size("reserve");
  const timeout = given.milliseconds("timeout");
  const keep = given.text("keep");
  const listen = given.text("listen");
  if (listen !== undefined) parseAddress(listen, given.origin("listen"));
  const security: ServeOptions = {
    ...keyOptions(given),
    ...tlsOptions(given),
    ...httpOptions(given),
    ...(listen === undefined ? {} : { listen }),
  };
  if (asksForKeys(security) || asksViewersForKeys(security)) showFirstKey(security, terminal);
  const server = await serve(directory, {
    ...security,
    ...articleOptions(given),
    portableNames: given.isOn("portable-names"),
    durable: given.isOn("durable"),
    ...(reserve === undefined ? {} : { reserve }),
    ...(keep === undefined ? {} : { keep: parseKeep(keep, given.origin("keep")) }),
    onEvent: report,
    ...(given.isOn("verbose")
      ? { onStored: (stored) => reportStored(stored, json, terminal) }
      : {}),
    ...(maxFrame === undefined ? {} : { maxFrame }),
    ...(timeout === undefined ? {} : { timeout }),
  });
  if (json) {
    const { host, port, directory, article, http } = server;
    sayJson(terminal, { type: "listening", time: now(), host, port, directory, article, http });
  }
  if (!quiet) greet(server, terminal);
  if (!quiet && server.article !== undefined) {
    say(
      terminal,
      `Listening at ${server.article} for the article's clients, without key or checksum`,
    );
  }
  if (!quiet && server.page !== undefined) sayPage(server.page, given, terminal);
  await new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    stop.addEventListener("abort", () => resolve());
  });
  const open = server.connections;
  if (!quiet && open > 0) {
    say(terminal, `Stopping: ${formatCount(open, "sender")} told; once more to stop at once`);
  }
  await server.stop();
  if (json) {
    const refused = Object.fromEntries(server.refusals);
    sayJson(terminal, { type: "stopped", time: now(), refused });
  }
  if (!quiet) say(terminal, `Stopped${refusalText(server)}`);
  return 0;
}

/** Frames refused and connections ended, of all the time that it served. */
function refusalText({ refusals }: Server): string {
  const sums = [...refusals].map(([code, times]) => `${times} ${code}`);
  return sums.length === 0 ? "" : `; refused: ${sums.join(", ")}`;
}

function greet(server: Server, terminal: Terminal): void {
  say(terminal, `frames ${version}: frames are kept in ${server.directory}`);
  const { port, isSecure } = server;
  const how = isSecure ? "TLS, for those who have a key" : "without key or encryption (--insecure)";
  if (isLoopback(server.host)) {
    const more = isSecure ? how : `for others: frames serve --listen :${port}`;
    say(terminal, `Listening at ${server.address}: only this machine; ${more}`);
    return;
  }
  const own = server.host === "" ? ownAddresses() : [server.host];
  const [to = `THIS-MACHINE:${port}`] = own.map((host) => formatAddress({ host, port }));
  say(terminal, `Listening at port ${port}: ${how}`);
  if (isSecure) {
    say(
      terminal,
      "On the other machine, once: frames key save    (the key is shown here by: frames key)",
    );
  }
  const flag = isSecure ? "" : " --insecure";
  say(terminal, `On the other machine: frames send DIR --to ${to}${flag}`);
}

/** Where the page is; of a server at every interface also where others reach it. */
function sayPage(page: string, given: Arguments, terminal: Terminal): void {
  const isEverywhere = /^:\d+$/.test(given.text("http") ?? "");
  const [host] = isEverywhere ? ownAddresses() : [];
  const other = new URL(page);
  if (host !== undefined) other.hostname = host.includes(":") ? `[${host}]` : host;
  say(terminal, `See it at ${page}${host === undefined ? "" : `; elsewhere at ${other.href}`}`);
}

/** A key that is made now is shown to whoever sits in front of it, and to no log. */
function showFirstKey({ key, keyFile }: ServeOptions, terminal: Terminal): void {
  if (key !== undefined || keyFile !== undefined) return;
  const path = defaultKeyFile();
  const made = firstKey(path, "default");
  if (made === undefined) return;
  say(terminal, `A key was made in ${path}${terminal.isLive ? `: ${made.text}` : ""}`);
}

function tlsOptions(given: Arguments): Pick<ServeOptions, "tls"> {
  const certificate = given.text("tls-cert");
  const key = given.text("tls-key");
  if (certificate === undefined && key === undefined) return {};
  if (certificate === undefined || key === undefined) {
    throw new FramesError("usage", "Cannot serve: --tls-cert and --tls-key are given together");
  }
  return { tls: { certificate, key } };
}

/** The page is there unless somebody else has its usual port, or it is not wanted. */
function httpOptions(given: Arguments): Pick<ServeOptions, "http" | "httpIfFree"> {
  const http = given.text("http");
  if (http === undefined) return { http: defaultHttp, httpIfFree: true };
  if (http === "off") return {};
  parseAddress(http, given.origin("http"));
  return { http };
}

function articleOptions(given: Arguments): Pick<ServeOptions, "article" | "articleInsecure"> {
  const article = given.text("article");
  return {
    ...(article === undefined ? {} : { article }),
    articleInsecure: given.isOn("article-insecure"),
  };
}

function eventText(event: ServeEvent): string {
  switch (event.type) {
    case "recovered": {
      const unfinished = `removed ${formatCount(event.unfinished, "unfinished frame")}`;
      const replaced = `completed ${formatCount(event.replaced, "replacement")}`;
      return `The last server did not stop in order: ${unfinished}, ${replaced}`;
    }
    case "session":
      return `${event.peer} sends ${event.stream} (${event.software}${event.key === undefined ? "" : `, key ${event.key}`})`;
    case "refused":
      return `${event.peer} refused ${event.stream}: ${event.source}/${event.frame.name} (number ${event.frame.sequence}): ${event.error.message}`;
    case "keys":
      return event.error === undefined
        ? "The key file was read again"
        : `The key file was not read again, the keys before still hold: ${event.error.message}`;
    case "lost":
      return `${event.peer} could not send ${event.stream}: ${formatCount(event.frames, "frame")} of ${event.source}: ${event.error.message}`;
    case "delivered": {
      const { stored, present, refused } = event.counts;
      const there = present + event.found;
      return `${event.peer} delivered ${event.stream}: ${stored} stored, ${there} there already, ${refused} refused`;
    }
    case "failed": {
      const { peer, stream, counts, error } = event;
      const said = error.code === "internal" ? Bun.inspect(error.cause ?? error) : error.message;
      if (stream === undefined) return `${peer}: ${said}`;
      const safe = counts.stored + counts.present;
      return `${peer} ended ${stream} after ${formatCount(safe, "frame")}: ${said}`;
    }
    case "no-page":
      return `There is no page: ${event.error.message}`;
    case "turned-away":
      return `${event.host} was turned away ${event.times} times more in a minute`;
    case "removed": {
      const { frames, bytes, stuck } = event;
      const what = `Removed ${formatCount(frames, "frame")} (${formatBytes(bytes)}), as --keep says`;
      return stuck === 0 ? what : `${what}; the files of ${stuck} more cannot be removed`;
    }
  }
}

function eventJson(event: ServeEvent): Record<string, unknown> {
  const { type } = event;
  const time = now();
  switch (event.type) {
    case "recovered":
    case "session":
    case "delivered":
    case "turned-away":
    case "removed":
      return { ...event, time };
    case "refused":
      return { type, time, ...frameJson(event), ...errorJson(event.error) };
    case "no-page":
      return { type, time, ...errorJson(event.error) };
    case "keys":
      return { type, time, ...(event.error === undefined ? {} : errorJson(event.error)) };
    case "lost": {
      const { peer, stream, source, frames } = event;
      return { type, time, peer, stream, source, frames, ...errorJson(event.error) };
    }
    case "failed":
      return {
        type,
        time,
        peer: event.peer,
        stream: event.stream,
        counts: event.counts,
        ...errorJson(event.error),
      };
  }
}

function reportStored(stored: StoredEvent, json: boolean, terminal: Terminal): void {
  const { peer, stream, source, frame } = stored;
  if (json) return sayJson(terminal, { type: "stored", time: now(), ...frameJson(stored) });
  say(
    terminal,
    `${now()} ${peer} FRAME ${stream} ${source} ${frame.sequence} ${frame.name} ${frame.size} bytes`,
  );
}

function frameJson({ peer, stream, source, frame }: StoredEvent): Record<string, unknown> {
  const { name, sequence, size, captured } = frame;
  return { peer, stream, source, sequence, name, bytes: size, captured };
}

function now(): string {
  return new Date().toISOString();
}

function errorJson(error: FramesError): Record<string, unknown> {
  return { error: error.code, message: error.message };
}
