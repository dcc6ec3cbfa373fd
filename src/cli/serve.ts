/** `frames serve`: runs a server, and prints its events. */
import { isAnyAddress } from "../common/any-address.ts";
import { defined } from "../common/defined.ts";
import { usageError } from "../errors.ts";
import { formatAddress, isLoopback, parseAddress, reachableHosts } from "../net/address.ts";
import { printable } from "../safe-text.ts";
import type { ServeEvent, StoredEvent } from "../server/serve-event.ts";
import { defaultKeyFile, createFirstKey } from "../keys/key-file.ts";
import { passedSocket, SystemdNotifier } from "../net/systemd.ts";
import { requiresKeys, requiresHttpKeys, serve, type ServeOptions } from "../server/serve.ts";
import type { Server } from "../server/server-options.ts";
import { version } from "../version.ts";
import type { Arguments } from "./args/arguments.ts";
import { keyOptions } from "./args/key-options.ts";
import { errorJson, type LogLevel } from "./output/log-format.ts";
import { printLine, print, printJson, type Terminal } from "./output/terminal.ts";
import { formatBytes, formatCount, parseRetention } from "./args/units.ts";

/** Default of `--http`. */
const defaultHttp = "127.0.0.1:9727";

/** Refused frames printed per connection; the sender lists all of them. */
const maxListedRefusals = 10;

/**
 * Serves until `stop` is aborted.
 *
 * @param onReload registers the function that reads keys and certificate again (SIGHUP)
 * @returns the exit status
 * @throws {FramesError} if the server cannot start
 */
export async function serveCommand(
  args: Arguments,
  terminal: Terminal,
  stop: AbortSignal,
  onReload: (reload: () => void) => void,
): Promise<number> {
  const [directory = "received", ...rest] = args.positionals;
  if (rest.length > 0) {
    throw usageError(
      `Cannot serve ${rest[0]} too: a server has one directory; start another frames serve for it`,
    );
  }
  const json = args.isOn("json");
  const quiet = args.isOn("quiet");
  const refusedByPeer = new Map<string, number>();
  const onEvent = (event: ServeEvent) => {
    const { type } = event;
    const fields = eventFields(event);
    if (json) return printJson(terminal, { type, time: isoNow(), ...fields });
    if (event.type === "refused") {
      const refused = (refusedByPeer.get(event.peer) ?? 0) + 1;
      refusedByPeer.set(event.peer, refused);
      // A few lines are enough to show what is wrong.
      if (refused > maxListedRefusals) return;
    } else if (event.type === "delivered" || event.type === "failed") {
      refusedByPeer.delete(event.peer);
    }
    const level = levelOf(event);
    const isShownWhenQuiet =
      level === "error" || event.type === "failed" || event.type === "peers-rejected";
    if (quiet && !isShownWhenQuiet) return;
    printLine(terminal, { level, type, text: formatEvent(event), hasTime: true, fields });
  };
  const printStatus = (type: string, text: string, fields: Record<string, unknown> = {}) => {
    if (json) printJson(terminal, { type, time: isoNow(), ...fields });
    if (!quiet) printLine(terminal, { level: "info", type, text, hasTime: true, fields });
  };
  const systemd = SystemdNotifier.fromEnvironment(process.env, (error) => {
    printLine(terminal, {
      level: "warning",
      type: "supervisor",
      text: error.message,
      hasTime: true,
    });
  });
  const maxFrame = args.size("max-frame");
  const reserve = args.size("reserve");
  const timeout = args.milliseconds("timeout");
  const keep = args.text("keep");
  checkLog(args);
  const listen = args.text("listen");
  if (listen !== undefined) parseAddress(listen, args.label("listen"));
  const security: ServeOptions = {
    ...keyOptions(args),
    ...tlsOptions(args),
    ...httpOptions(args),
    ...defined({ listen, descriptor: passedSocket(process.env) }),
  };
  if (requiresKeys(security) || requiresHttpKeys(security)) showFirstKey(security, terminal);
  const server = await serve(directory, {
    ...security,
    ...defined({
      maxFrame,
      reserve,
      timeout,
      keep: keep === undefined ? undefined : parseRetention(keep, args.label("keep")),
      article: args.text("article"),
    }),
    articleInsecure: args.isOn("article-insecure"),
    portableNames: args.isOn("portable-names"),
    durable: args.isOn("durable"),
    onEvent,
    ...(args.isOn("verbose") ? { onStored: (stored) => printStored(stored, json, terminal) } : {}),
  });
  if (json) {
    const { host, port, directory, article, http } = server;
    printJson(terminal, {
      type: "listening",
      time: isoNow(),
      host,
      port,
      directory,
      article,
      http,
    });
  }
  if (!quiet) printListening(server, args, terminal);
  if (!quiet && server.pageUrl !== undefined) printPageAddress(server.pageUrl, args, terminal);
  const statusText = listeningText(server);
  systemd?.ready(statusText);
  onReload(() => {
    if (stop.aborted) return;
    systemd?.reloading();
    server.reload();
    systemd?.ready(statusText);
  });
  await new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    stop.addEventListener("abort", () => resolve());
  });
  const open = server.connections;
  const stoppingText = `waiting for ${formatCount(open, "client")}`;
  systemd?.stopping(`Stopping: ${stoppingText}`);
  if (open > 0)
    printStatus("stopping", `Stopping: ${stoppingText}; Ctrl-C again stops at once`, {
      senders: open,
    });
  await server.stop();
  const refused = Object.fromEntries(server.refusals);
  printStatus("stopped", `Stopped${refusalText(server)}`, { refused });
  return 0;
}

/** Checks `--log` only; `chooseLogStyle` applies it, before arguments are parsed. */
function checkLog(args: Arguments): void {
  const log = args.text("log");
  if (log === undefined || log === "text" || log === "json") return;
  const message = `expected text or json, current value is ${JSON.stringify(log)}`;
  throw usageError(`Cannot read ${args.label("log")}: ${message}`);
}

function levelOf(event: ServeEvent): LogLevel {
  switch (event.type) {
    case "failed":
      // Other errors are caused by the peer or the network.
      return event.error.code === "internal" || event.error.code === "store" ? "error" : "warning";
    case "keys":
    case "reloaded":
      return event.error === undefined ? "info" : "error";
    case "removed":
      return event.undeletable + event.passedOver === 0 ? "info" : "warning";
    case "session":
    case "delivered":
    case "receiving":
    case "received":
      return "info";
    default:
      return "warning";
  }
}

/** Refused frames and failed connections since the start, by error code. */
function refusalText({ refusals }: Server): string {
  const sums = [...refusals].map(([code, times]) => `${times} ${code}`);
  return sums.length === 0 ? "" : `; refused: ${sums.join(", ")}`;
}

function listeningText({ host, port, address }: Server): string {
  return `Listening at ${isAnyAddress(host) ? `port ${port}` : address}`;
}

function printListening(server: Server, args: Arguments, terminal: Terminal): void {
  if (terminal.style === "json") {
    const { host, port, directory, article, isSecure } = server;
    const fields = { version, host, port, directory, article, secure: isSecure };
    const text = listeningText(server);
    return printLine(terminal, { level: "info", type: "listening", text, fields });
  }
  printListeningText(server, terminal);
  if (server.article === undefined) return;
  const how = "for the article's clients, without key or checksum";
  const listensAt = parseAddress(args.text("article")!, "--article").host;
  const { port } = parseAddress(server.article, "--article");
  const [host] = reachableHosts(listensAt);
  const shown = host === undefined ? server.article : formatAddress({ host, port });
  print(terminal, `Listening at ${shown} ${how}`);
}

function printListeningText(server: Server, terminal: Terminal): void {
  print(terminal, `frames ${version}: frames are kept in ${server.directory}`);
  const { port, isSecure } = server;
  const how = isSecure ? "TLS, for clients with a key" : "without key or encryption (--insecure)";
  if (isLoopback(server.host)) {
    const scope = isSecure ? how : `for others: frames serve --listen :${port}`;
    print(terminal, `Listening at ${server.address}: only this machine; ${scope}`);
    return;
  }
  const hosts = reachableHosts(server.host);
  const [to = `THIS-MACHINE:${port}`] = hosts.map((host) => formatAddress({ host, port }));
  print(terminal, `Listening at port ${port}: ${how}`);
  if (isSecure) {
    print(terminal, "Once: run frames key here, and paste its output there into frames key save");
  }
  const flag = isSecure ? "" : " --insecure";
  print(terminal, `On the other machine: frames send DIR --to ${to}${flag}`);
}

/** Prints the page's URL; when listening on every interface also the URL for other machines. */
function printPageAddress(page: string, args: Arguments, terminal: Terminal): void {
  const http = args.text("http");
  const listensAt = http === undefined ? "127.0.0.1" : parseAddress(http, "--http").host;
  const [host] = isAnyAddress(listensAt) ? reachableHosts(listensAt) : [];
  const other = new URL(page);
  if (host !== undefined) other.hostname = host.includes(":") ? `[${host}]` : host;
  print(
    terminal,
    `See it at ${page}${host === undefined ? "" : `; from other machines at ${other.href}`}`,
  );
}

/** Creates the first key if there is none. Shows it on a terminal only, so that no log has it. */
function showFirstKey({ key, keyFile }: ServeOptions, terminal: Terminal): void {
  if (key !== undefined || keyFile !== undefined) return;
  const path = defaultKeyFile();
  const created = createFirstKey(path, "default");
  if (created === undefined) return;
  if (!terminal.isLive) return print(terminal, `A key was made in ${path}`);
  // `print` would hide the key.
  terminal.err(`A key was made in ${printable(path)}: ${created.text}\n`);
}

function tlsOptions(args: Arguments): Pick<ServeOptions, "tls"> {
  const certificate = args.text("tls-cert");
  const key = args.text("tls-key");
  if (certificate === undefined && key === undefined) return {};
  if (certificate === undefined || key === undefined) {
    throw usageError(
      `Cannot serve with --tls-${certificate === undefined ? "key" : "cert"} alone: add --tls-${certificate === undefined ? "cert" : "key"} FILE`,
    );
  }
  return { tls: { certificate, key } };
}

/** Without `--http`, the page is served at its default address if that port is free. */
function httpOptions(args: Arguments): Pick<ServeOptions, "http" | "httpIfFree"> {
  const http = args.text("http");
  if (http === undefined) return { http: defaultHttp, httpIfFree: true };
  if (http === "off") return {};
  parseAddress(http, args.label("http"));
  return { http };
}

function formatEvent(event: ServeEvent): string {
  switch (event.type) {
    case "recovered": {
      const unfinished = `removed ${formatCount(event.unfinished, "unfinished frame")}`;
      const replaced = `completed ${formatCount(event.replaced, "replacement")}`;
      return `The last server was killed, or the machine: ${unfinished}, ${replaced}`;
    }
    case "session":
      return `${event.peer} sends ${event.stream} (${event.software}${event.key === undefined ? "" : `, key ${event.key}`})`;
    case "receiving":
      return `${event.peer} receives ${event.stream} (${event.software}${event.key === undefined ? "" : `, key ${event.key}`})`;
    case "received": {
      const { frames, bytes, gone, unread, dropped } = event.counts;
      const problems = [
        ...(gone > 0 ? [`${gone} deleted before`] : []),
        ...(unread > 0 ? [`${unread} unreadable`] : []),
        ...(dropped > 0 ? [`${dropped} dropped`] : []),
      ];
      const received = `${formatCount(frames, "frame")}, ${formatBytes(bytes)}`;
      return `${event.peer} received ${event.stream}: ${[received, ...problems].join(", ")}`;
    }
    case "refused":
      return `Refused from ${event.peer}: ${event.stream}, ${event.source}/${event.frame.name} (number ${event.frame.sequence}): ${event.error.message}`;
    case "keys":
      return event.error === undefined
        ? "Read the key file again"
        : `The old keys stay in use: ${event.error.message}`;
    case "reloaded":
      return event.error === undefined
        ? "Read keys and certificate again"
        : `The old certificate stays in use: ${event.error.message}`;
    case "certificate-not-saved":
      return `The next start makes another certificate, because this one was not saved: ${event.error.message}`;
    case "lost":
      return `${event.peer} could not send ${formatCount(event.frames, "frame")} of ${event.stream}, ${event.source}: ${event.error.message}`;
    case "delivered": {
      const { stored, present, refused } = event.counts;
      const alreadyPresent = present + event.found;
      return `${event.peer} delivered ${event.stream}: ${stored} stored, ${alreadyPresent} there already, ${refused} refused`;
    }
    case "failed": {
      const { peer, stream, counts, error } = event;
      const message = error.code === "internal" ? Bun.inspect(error.cause ?? error) : error.message;
      if (stream === undefined) return `${peer}: ${message}`;
      const storedFrames = counts.stored + counts.present;
      return `${peer} ended ${stream} after ${formatCount(storedFrames, "frame")}: ${message}`;
    }
    case "no-page":
      return `The page is off: ${event.error.message}`;
    case "peers-rejected":
      return `${event.host} was refused ${event.count} more times within a minute`;
    case "removed": {
      const { frames, bytes, undeletable, passedOver } = event;
      const removed = `Removed ${formatCount(frames, "frame")} (${formatBytes(bytes)}) because of --keep`;
      const unread = `, ${passedOver} of them before a slow receiver had them`;
      const what = passedOver === 0 ? removed : `${removed}${unread}`;
      return undeletable === 0
        ? what
        : `${what}; cannot delete the files of ${undeletable} more, check their permissions`;
    }
  }
}

/** Returns the fields of an event for programs, besides its type. */
function eventFields(event: ServeEvent): Record<string, unknown> {
  const { type: _, ...fields } = event;
  return {
    ...fields,
    ...("frame" in event ? { ...frameJson(event), frame: undefined } : {}),
    ...("error" in event ? { session: undefined, error: undefined } : {}),
    ...("error" in event && event.error !== undefined ? errorJson(event.error) : {}),
  };
}

function printStored(stored: StoredEvent, json: boolean, terminal: Terminal): void {
  const { peer, stream, source, frame } = stored;
  if (json) return printJson(terminal, { type: "stored", time: isoNow(), ...frameJson(stored) });
  const text = `${peer} FRAME ${stream} ${source} ${frame.sequence} ${frame.name} ${frame.size} bytes`;
  const fields = frameJson(stored);
  printLine(terminal, { level: "debug", type: "stored", text, hasTime: true, fields });
}

function frameJson({ peer, stream, source, frame }: StoredEvent): Record<string, unknown> {
  const { name, sequence, size, captured } = frame;
  return { peer, stream, source, sequence, name, bytes: size, captured };
}

function isoNow(): string {
  return new Date().toISOString();
}
