/** `/metrics`: Prometheus text format 0.0.4. */
import { printable } from "../../safe-text.ts";
import { version } from "../../version.ts";
import { textResponse } from "../responses.ts";
import { delayBucketsSeconds, type SourceStats } from "../live/source-stats.ts";
import { streamClientKinds } from "../stream-clients.ts";
import type { RouteRequest } from "./request.ts";

const headers = { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" };

/**
 * Limit of sources and streams with their own series. Sources with the newest frames come first.
 */
const maxSourceSeries = 1000;
const maxStreamSeries = 100;

/** Label value of the combined series for sources and streams over the limit. */
const otherLabel = "other";

type Labels = Readonly<Record<string, string>>;

/** One metric with all its series, as text. */
class Metric {
  readonly #lines: string[];
  readonly #name: string;

  /** @param type by default a counter if the name ends in `_total`, else a gauge */
  constructor(name: string, help: string, type?: "histogram") {
    this.#name = name;
    const usualType = name.endsWith("_total") ? "counter" : "gauge";
    this.#lines = [`# HELP ${name} ${help}`, `# TYPE ${name} ${type ?? usualType}`];
  }

  add(value: number, labels: Labels = {}, suffix = ""): this {
    const pairs = Object.entries(labels).map(([name, text]) => `${name}="${escapeLabel(text)}"`);
    const series = pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
    this.#lines.push(`${this.#name}${suffix}${series} ${value}`);
    return this;
  }

  get text(): string {
    return `${this.#lines.join("\n")}\n`;
  }
}

/**
 * Escapes a label's value. Some readers end a line at other control characters too, so these are
 * shown in their printable form.
 */
export function escapeLabel(text: string): string {
  const lines = text.split("\n").map(printable).join("\n");
  return lines.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

export async function handleMetrics(req: RouteRequest): Promise<Response> {
  await req.context.refresh();
  const text = await req.run(() => metricsText(req));
  return textResponse(text, 200, headers);
}

function metricsText(req: RouteRequest): string {
  const { context, principal } = req;
  const sources = [...context.liveSources.all()]
    .filter(({ stream, source, frames, lost }) => {
      return frames + lost > 0 && principal.canRead(stream, source);
    })
    .toSorted(
      (a, b) => Number(hasOtherLabel(a)) - Number(hasOtherLabel(b)) || b.receivedAt - a.receivedAt,
    );
  const metrics = [...sourceMetrics(sources, context.liveSources.now), delayMetric(sources)];
  if (principal.canReadAll) metrics.push(...serverMetrics(req));
  return metrics.map(({ text }) => text).join("");
}

/**
 * Returns whether the source's own labels equal those of the combined series. It is counted there.
 */
function hasOtherLabel({ stream, source }: SourceStats): boolean {
  return stream === otherLabel && source === otherLabel;
}

/** Counters and gauges of each source, since the server started. */
function sourceMetrics(sources: readonly SourceStats[], now: number): Metric[] {
  const stored = new Metric("frames_stored_total", "Frames stored since the server started.");
  const bytes = new Metric(
    "frames_stored_bytes_total",
    "Bytes of the frames stored since the server started.",
  );
  const lost = new Metric(
    "frames_lost_total",
    "Frame numbers that senders dropped or the server refused, since the server started.",
  );
  const missing = new Metric("frames_missing", "Frame numbers missing in the current session.");
  const lastReceived = new Metric(
    "frames_last_received_timestamp_seconds",
    "Time of the last frame.",
  );
  const rate = new Metric("frames_rate", "Frames per second over the last five seconds.");
  const addCounts = (counted: Pick<SourceStats, "frames" | "bytes" | "lost">, labels: Labels) => {
    stored.add(counted.frames, labels);
    bytes.add(counted.bytes, labels);
    lost.add(counted.lost, labels);
  };
  const listed = sources.filter((stats) => !hasOtherLabel(stats)).slice(0, maxSourceSeries);
  for (const stats of listed) {
    const { stream, source, receivedAt } = stats;
    const labels = { stream, source };
    addCounts(stats, labels);
    missing.add(stats.missing, labels);
    if (receivedAt > 0) lastReceived.add(receivedAt / 1000, labels);
    rate.add(now - receivedAt < 300_000 ? stats.rate : 0, labels);
  }
  const rest = sources.slice(listed.length);
  if (rest.length > 0) {
    const total = (name: "frames" | "bytes" | "lost") => sum(rest, (stats) => stats[name]);
    const counted = { frames: total("frames"), bytes: total("bytes"), lost: total("lost") };
    addCounts(counted, { stream: otherLabel, source: otherLabel });
  }
  return [stored, bytes, lost, missing, lastReceived, rate];
}

/** Histogram of the delay from capture to receipt, per stream. */
function delayMetric(sources: readonly SourceStats[]): Metric {
  const help = "Time from capture to receipt of a frame.";
  const metric = new Metric("frames_receipt_delay_seconds", help, "histogram");
  const byStream = new Map<string, SourceStats[]>();
  for (const stats of sources) {
    const isKnown = byStream.has(stats.stream) || byStream.size < maxStreamSeries;
    byStream.getOrInsertComputed(isKnown ? stats.stream : otherLabel, () => []).push(stats);
  }
  for (const [stream, list] of byStream) {
    let count = 0;
    for (const [index, end] of [...delayBucketsSeconds, Infinity].entries()) {
      count += sum(list, ({ delayCounts }) => delayCounts[index]!);
      metric.add(count, { stream, le: end === Infinity ? "+Inf" : String(end) }, "_bucket");
    }
    metric.add(sum(list, ({ delaySumMs }) => delaySumMs) / 1000, { stream }, "_sum");
    metric.add(count, { stream }, "_count");
  }
  return metric;
}

/** Metrics of the whole server. */
function serverMetrics({ clients, context }: RouteRequest): Metric[] {
  const { liveSources, status, started, storeError } = context;
  const { connections, refusals } = context.server;
  const refused = new Metric(
    "frames_refused_total",
    "Frames refused and connections ended, by error.",
  );
  for (const [code, refusalCount] of [...refusals].toSorted()) refused.add(refusalCount, { code });
  const streaming = new Metric("frames_viewers", "Open live views, by transport.");
  for (const kind of streamClientKinds) streaming.add(clients.count(kind), { kind });
  const { frames, bytes, free, total } = status.storeStatus();
  const isReady = storeError === undefined ? 1 : 0;
  const startSeconds = started.getTime() / 1000;
  const memoryBytes = process.memoryUsage.rss();
  const values: readonly (readonly [name: string, help: string, value: number | null])[] = [
    ["frames_connections", "Open connections.", connections],
    ["frames_senders", "Connected senders.", liveSources.senders.length],
    ["frames_viewer_dropped_total", "Frames dropped for slow live views.", clients.dropped],
    ["frames_store_frames", "Frames in the store.", frames],
    ["frames_store_bytes", "Bytes of the frames in the store.", bytes],
    ["frames_store_free_bytes", "Free bytes on the disk of the store.", free],
    ["frames_store_size_bytes", "Size of the disk of the store, in bytes.", total],
    ["frames_ready", "1 if the store can be written, else 0.", isReady],
    ["process_start_time_seconds", "Start time of the server.", startSeconds],
    ["process_resident_memory_bytes", "Resident memory of the server.", memoryBytes],
    ["process_cpu_seconds_total", "Processor time of the server.", cpuSeconds()],
  ];
  return [
    refused,
    streaming,
    new Metric("frames_build_info", "Version of frames.").add(1, { version }),
    ...values.flatMap(([name, help, value]) => {
      return value === null ? [] : [new Metric(name, help).add(value)];
    }),
  ];
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function sum<T>(list: readonly T[], value: (one: T) => number): number {
  return list.reduce((total, one) => total + value(one), 0);
}
