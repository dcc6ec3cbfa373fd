// /metrics in Prometheus' text format 0.0.4, and other endpoints for operators.

import { expect, test } from "bun:test";
import { mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { send } from "frames";
import { escapeLabel } from "../../../src/http/routes/metrics.ts";
import { Camera, startViewed } from "../../helper/viewing.ts";

interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: { name: string; labels: Map<string, string>; value: number }[];
}

/** Parses the format by its specification and throws on violations. */
function parse(text: string): Map<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let help: [string, string] | undefined;
  let name = "";
  for (const line of text.slice(0, -1).split("\n")) {
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    if (comment !== null) {
      const [, kind, metric, rest] = comment as unknown as [string, string, string, string];
      if (kind === "HELP") help = [metric, rest];
      else {
        if (families.has(metric)) throw new Error(`${metric} has its lines in two places`);
        if (!/^(?:counter|gauge|histogram)$/.test(rest)) throw new Error(`the type ${rest}`);
        if (help?.[0] !== metric) throw new Error(`${metric} has no HELP`);
        families.set(metric, { type: rest, help: help[1], samples: [] });
        name = metric;
      }
      continue;
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (sample === null) throw new Error(`cannot read ${line}`);
    const [, metric, inside = "", value] = sample as unknown as [string, string, string, string];
    const family = families.get(name)!;
    const suffixes = family.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    if (!suffixes.some((suffix) => metric === name + suffix))
      throw new Error(`${metric} in ${name}`);
    const labels = new Map<string, string>();
    const label = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)/y;
    while (label.lastIndex < inside.length) {
      const found = label.exec(inside);
      if (found === null) throw new Error(`cannot read the labels of ${line}`);
      const text = found[2]!.replace(/\\([\\"n])/g, (_, one) => (one === "n" ? "\n" : one));
      labels.set(found[1]!, text);
    }
    const number = value === "+Inf" ? Infinity : Number(value);
    if (Number.isNaN(number)) throw new Error(`cannot read the value of ${line}`);
    const series = `${metric}${JSON.stringify([...labels].toSorted())}`;
    if (seen.has(series)) throw new Error(`${series} is there twice`);
    seen.add(series);
    family.samples.push({ name: metric, labels, value: number });
  }
  for (const [metric, { type, samples }] of families) {
    if (type === "counter" && !metric.endsWith("_total")) throw new Error(`${metric} is no total`);
    if (type === "histogram") checkHistogram(metric, samples);
  }
  return families;
}

function checkHistogram(metric: string, samples: Family["samples"]): void {
  const groups = Map.groupBy(samples, ({ labels }) => {
    return JSON.stringify([...labels].filter(([name]) => name !== "le"));
  });
  for (const group of groups.values()) {
    const buckets = group.filter(({ name }) => name === `${metric}_bucket`);
    const ends = buckets.map(({ labels }) => labels.get("le")!);
    expect(ends.at(-1)).toBe("+Inf");
    expect(ends.slice(0, -1).map(Number)).toEqual(
      ends
        .slice(0, -1)
        .map(Number)
        .toSorted((a, b) => a - b),
    );
    const counts = buckets.map(({ value }) => value);
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    expect(group.find(({ name }) => name === `${metric}_count`)!.value).toBe(counts.at(-1)!);
    expect(group.some(({ name }) => name === `${metric}_sum`)).toBe(true);
  }
}

test("the metrics follow the format of Prometheus for any source name, and count frames", async () => {
  await using viewed = await startViewed();
  const camera = new Camera(viewed.server, 'a "b" ü', "x/y{z=1}");
  for (let number = 1; number <= 3; number++) await camera.store(new Uint8Array(100 * number));
  const to = { to: viewed.server.address, stream: "other", source: "other" };
  await send([{ bytes: new Uint8Array(5), name: "1" }], to);
  await send([{ bytes: new Uint8Array(6), name: "1" }], to).catch(() => {});
  const answer = await viewed.get("/metrics");
  expect(answer.headers.get("Content-Type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const families = parse(await answer.text());
  const value = (name: string, labels: Record<string, string> = {}) => {
    const family = families.get(name) ?? families.get(name.replace(/_(?:bucket|sum|count)$/, ""))!;
    return family.samples.find((sample) => {
      return sample.name === name && Bun.deepEquals(Object.fromEntries(sample.labels), labels);
    })?.value;
  };
  const labels = { stream: 'a "b" ü', source: "x/y{z=1}" };
  expect(value("frames_stored_total", labels)).toBe(3);
  expect(value("frames_stored_bytes_total", labels)).toBe(600);
  expect(value("frames_receipt_delay_seconds_count", { stream: labels.stream })).toBe(3);
  expect(value("frames_stored_total", { stream: "other", source: "other" })).toBe(1);
  expect(value("frames_refused_total", { code: "conflict" })).toBe(1);
  expect(value("frames_store_frames")).toBe(4);
  expect(value("frames_store_bytes")).toBe(605);
  expect(value("frames_store_free_bytes")).toBeGreaterThan(0);
  expect(value("frames_senders")).toBe(1);
  expect(value("frames_viewers", { kind: "mjpeg" })).toBe(0);
  expect(value("process_resident_memory_bytes")).toBeGreaterThan(1e6);
  await camera.end();
});

test("the metrics have series of their own for a thousand sources, and one for all others", async () => {
  await using viewed = await startViewed();
  const frames = [{ bytes: new Uint8Array(1), name: "1" }];
  // Ten deliveries at a time.
  for (let from = 0; from < 1030; from += 10) {
    await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        send(frames, { to: viewed.server.address, stream: "many", source: `${from + index}` }),
      ),
    );
  }
  const { samples } = parse(await (await viewed.get("/metrics")).text()).get(
    "frames_stored_total",
  )!;
  expect(samples.length).toBe(1001);
  expect(samples.at(-1)!.labels.get("source")).toBe("other");
  expect(samples.at(-1)!.value).toBe(30);
});

test("the health routes say whether the server is alive and whether it can store", async () => {
  await using viewed = await startViewed();
  expect(await (await viewed.get("/healthz")).text()).toBe("ok\n");
  expect((await viewed.get("/readyz")).status).toBe(200);
  const { directory } = viewed.server;
  renameSync(join(directory, ".frames"), join(directory, ".away"));
  mkdirSync(join(directory, ".frames"));
  const answer = await viewed.get("/readyz");
  expect(answer.status).toBe(503);
  expect(await answer.text()).toMatch(/was deleted/);
  expect((await viewed.get("/healthz")).status).toBe(200);
});

test("a label holds no line break and no control character, whatever a name is", () => {
  expect(escapeLabel('a "b" \\')).toBe(String.raw`a \"b\" \\`);
  for (const name of [
    'x"} 1\nframes_ready 0',
    "a\r\nb\x85c\u2028d",
    "\0\x1b[2J\u202e",
    '\\"\n\\',
  ]) {
    const label = escapeLabel(name);
    expect(label).not.toMatch(/[\p{Cc}\u2028\u2029\u202a-\u202e]/u);
    // No quote or backslash is left that does not belong to an escape.
    expect(label).toMatch(/^(?:[^"\\]|\\["\\n])*$/);
  }
});
