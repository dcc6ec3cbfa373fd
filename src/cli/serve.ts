/** `frames serve`. */
import { FramesError } from "../errors.ts";
import { isLoopback, ownAddresses, parseAddress } from "../net/address.ts";
import type { ServeEvent, StoredEvent } from "../reception.ts";
import { serve } from "../serve.ts";
import type { Server } from "../server.ts";
import { version } from "../version.ts";
import type { Arguments } from "./flags.ts";
import { say, sayJson, type Terminal } from "./terminal.ts";
import { formatCount } from "./units.ts";

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
    if (!quiet || event.type === "failed") say(terminal, `${now()} ${eventText(event)}`);
  };
  const maxFrame = given.size("max-frame");
  const reserve = given.size("reserve");
  const timeout = given.milliseconds("timeout");
  const listen = given.text("listen");
  if (listen !== undefined) parseAddress(listen, given.origin("listen"));
  const server = await serve(directory, {
    insecure: given.isOn("insecure"),
    portableNames: given.isOn("portable-names"),
    durable: given.isOn("durable"),
    ...(reserve === undefined ? {} : { reserve }),
    onEvent: report,
    ...(given.isOn("verbose")
      ? { onStored: (stored) => reportStored(stored, json, terminal) }
      : {}),
    ...(listen === undefined ? {} : { listen }),
    ...(maxFrame === undefined ? {} : { maxFrame }),
    ...(timeout === undefined ? {} : { timeout }),
  });
  if (json) {
    const { host, port } = server;
    sayJson(terminal, { type: "listening", time: now(), host, port, directory: server.directory });
  }
  if (!quiet) greet(server, terminal);
  await new Promise<void>((resolve) => {
    if (stop.aborted) resolve();
    stop.addEventListener("abort", () => resolve());
  });
  const open = server.connections;
  if (!quiet && open > 0) {
    say(terminal, `Stopping: ${formatCount(open, "sender")} told; once more to stop at once`);
  }
  await server.stop();
  if (!quiet) say(terminal, "Stopped");
  return 0;
}

function greet(server: Server, terminal: Terminal): void {
  say(terminal, `frames ${version}: frames are kept in ${server.directory}`);
  if (isLoopback(server.host)) {
    const port = server.port;
    say(
      terminal,
      `Listening at ${server.address}: only this machine; for others: frames serve --listen :${port} --insecure`,
    );
    return;
  }
  const [own] = server.host === "" ? ownAddresses() : [server.host];
  say(terminal, `Listening at port ${server.port}, without key or encryption (--insecure)`);
  say(
    terminal,
    `On the other machine: frames send DIR --to ${own === undefined ? "THIS-MACHINE" : own.includes(":") ? `[${own}]` : own}:${server.port}`,
  );
}

function eventText(event: ServeEvent): string {
  switch (event.type) {
    case "recovered": {
      const unfinished = `removed ${formatCount(event.unfinished, "unfinished frame")}`;
      const replaced = `completed ${formatCount(event.replaced, "replacement")}`;
      return `The last server did not stop in order: ${unfinished}, ${replaced}`;
    }
    case "session":
      return `${event.peer} sends ${event.stream} (${event.software})`;
    case "refused":
      return `${event.peer} refused ${event.stream}: ${event.source}/${event.frame.name} (number ${event.frame.sequence}): ${event.error.message}`;
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
  }
}

function eventJson(event: ServeEvent): Record<string, unknown> {
  const { type } = event;
  const time = now();
  switch (event.type) {
    case "recovered":
    case "session":
    case "delivered":
      return { ...event, time };
    case "refused":
      return { type, time, ...frameJson(event), ...errorJson(event.error) };
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
