/** `frames serve`. */
import { FramesError } from "../errors.ts";
import { formatAddress, isLoopback, ownAddresses, parseAddress } from "../net/address.ts";
import type { ServeEvent, StoredEvent } from "../server/serve-event.ts";
import { defaultKeyFile, firstKey } from "../keys.ts";
import { givenSocket, Supervisor } from "../net/systemd.ts";
import { asksForKeys, asksViewersForKeys, serve, type ServeOptions } from "../serve.ts";
import type { Server } from "../server/options.ts";
import { version } from "../version.ts";
import type { Arguments } from "./arguments.ts";
import { keyOptions } from "./key.ts";
import type { Level } from "./lines.ts";
import { note, say, sayJson, type Terminal } from "./terminal.ts";
import { formatBytes, formatCount, parseKeep } from "./units.ts";

/** Where the page is, unless something else is asked for. */
const defaultHttp = "127.0.0.1:9727";

/** Refused frames of one delivery that are named one by one. */
const mostNamed = 10;

/**
 * Serves until `stop` is aborted.
 *
 * @param onReload takes what reads keys and certificate again
 */
export async function serveCommand(
  given: Arguments,
  terminal: Terminal,
  stop: AbortSignal,
  onReload: (reload: () => void) => void,
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
    const level = levelOf(event);
    const isWanted = level === "error" || event.type === "failed" || event.type === "turned-away";
    if (quiet && !isWanted) return;
    const { type, time: _, ...fields } = eventJson(event);
    note(terminal, { level, type: `${type}`, text: eventText(event), isDated: true, fields });
  };
  const tell = (type: string, text: string, fields: Record<string, unknown> = {}) => {
    if (json) sayJson(terminal, { type, time: now(), ...fields });
    if (!quiet) note(terminal, { level: "info", type, text, isDated: true, fields });
  };
  const supervisor = Supervisor.of(process.env, (error) => {
    note(terminal, { level: "warning", type: "supervisor", text: error.message, isDated: true });
  });
  const maxFrame = given.size("max-frame");
  const reserve = given.size("reserve");
  const timeout = given.milliseconds("timeout");
  const keep = given.text("keep");
  checkLog(given);
  const listen = given.text("listen");
  if (listen !== undefined) parseAddress(listen, given.origin("listen"));
  const descriptor = givenSocket(process.env);
  const security: ServeOptions = {
    ...keyOptions(given),
    ...tlsOptions(given),
    ...httpOptions(given),
    ...(listen === undefined ? {} : { listen }),
    ...(descriptor === undefined ? {} : { descriptor }),
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
  if (!quiet && server.page !== undefined) sayPage(server.page, given, terminal);
  const status = whereOf(server);
  supervisor?.ready(status);
  onReload(() => {
    if (stop.aborted) return;
    supervisor?.reloading();
    server.reload();
    supervisor?.ready(status);
  });
  await new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    stop.addEventListener("abort", () => resolve());
  });
  const open = server.connections;
  const told = `${formatCount(open, "sender")} told`;
  supervisor?.stopping(`Stopping: ${told}`);
  if (open > 0) tell("stopping", `Stopping: ${told}; once more to stop at once`, { senders: open });
  await server.stop();
  const refused = Object.fromEntries(server.refusals);
  tell("stopped", `Stopped${refusalText(server)}`, { refused });
  return 0;
}

/** What it says decides how errors before this are written, too: it was read first of all. */
function checkLog(given: Arguments): void {
  const log = given.text("log");
  if (log === undefined || log === "text" || log === "json") return;
  const message = `expected text or json, current value is ${JSON.stringify(log)}`;
  throw new FramesError("usage", `Cannot read ${given.origin("log")}: ${message}`);
}

function levelOf(event: ServeEvent): Level {
  switch (event.type) {
    case "failed":
      // The others are the peers' affair.
      return event.error.code === "internal" || event.error.code === "store" ? "error" : "warning";
    case "keys":
    case "reloaded":
      return event.error === undefined ? "info" : "error";
    case "removed":
      return event.stuck === 0 ? "info" : "warning";
    case "session":
    case "delivered":
    case "receiving":
    case "received":
      return "info";
    default:
      return "warning";
  }
}

/** Frames refused and connections ended, of all the time that it served. */
function refusalText({ refusals }: Server): string {
  const sums = [...refusals].map(([code, times]) => `${times} ${code}`);
  return sums.length === 0 ? "" : `; refused: ${sums.join(", ")}`;
}

function whereOf({ host, port, address }: Server): string {
  return `Listening at ${host === "" ? `port ${port}` : address}`;
}

function greet(server: Server, terminal: Terminal): void {
  if (terminal.style === "json") {
    const { host, port, directory, article, isSecure } = server;
    const fields = { version, host, port, directory, article, secure: isSecure };
    const text = whereOf(server);
    return note(terminal, { level: "info", type: "listening", text, fields });
  }
  greetPeople(server, terminal);
  if (server.article === undefined) return;
  const how = "for the article's clients, without key or checksum";
  say(terminal, `Listening at ${server.article} ${how}`);
}

function greetPeople(server: Server, terminal: Terminal): void {
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
    case "receiving":
      return `${event.peer} receives ${event.stream} (${event.software}${event.key === undefined ? "" : `, key ${event.key}`})`;
    case "received": {
      const { frames, bytes, gone, unread, dropped } = event.provided;
      const left = [
        ...(gone > 0 ? [`${gone} gone`] : []),
        ...(unread > 0 ? [`${unread} not sent`] : []),
        ...(dropped > 0 ? [`${dropped} dropped`] : []),
      ];
      const what = `${formatCount(frames, "frame")}, ${formatBytes(bytes)}`;
      return `${event.peer} received ${event.stream}: ${[what, ...left].join(", ")}`;
    }
    case "refused":
      return `${event.peer} refused ${event.stream}: ${event.source}/${event.frame.name} (number ${event.frame.sequence}): ${event.error.message}`;
    case "keys":
      return event.error === undefined
        ? "The key file was read again"
        : `The key file was not read again, the keys before still hold: ${event.error.message}`;
    case "reloaded":
      return event.error === undefined
        ? "Keys and certificate were read again, where there are any"
        : `The certificate was not read again, the one before still holds: ${event.error.message}`;
    case "unkept":
      return `The server's certificate lasts until it stops, there is no place for it: ${event.error.message}`;
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
    case "receiving":
    case "received":
    case "turned-away":
    case "removed":
      return { ...event, time };
    case "refused":
      return { type, time, ...frameJson(event), ...errorJson(event.error) };
    case "no-page":
      return { type, time, ...errorJson(event.error) };
    case "keys":
    case "reloaded":
    case "unkept":
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
  const text = `${peer} FRAME ${stream} ${source} ${frame.sequence} ${frame.name} ${frame.size} bytes`;
  const fields = frameJson(stored);
  note(terminal, { level: "debug", type: "stored", text, isDated: true, fields });
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
