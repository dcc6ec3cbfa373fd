// Our client of the article's dialect against a model of a published server, in memory with a fake
// clock.
//
// Covers: protocol/article/article-receiver.ts, protocol/article/article-sender.ts

import { describe, expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import { streamFromFolder } from "../../../src/protocol/article/article-receiver.ts";
import { ArticleSender } from "../../../src/protocol/article/article-sender.ts";
import { ArticleDecoder } from "../../../src/wire/article.ts";
import { randomFrom } from "../../helper/cutter.ts";

/** How the network splits and delays data. */
interface Network {
  /** Returns the length of the next part. */
  cut(length: number): number;
  /** Returns the one-way delay of a part in milliseconds. Parts never overtake each other. */
  delay(): number;
}

interface Arrival {
  readonly at: number;
  readonly bytes: Buffer;
}

/** A server that expects each text in a single recv, and answers each recv of a picture. */
class PublishedServer {
  readonly pictures = new Map<string, Buffer>();
  readonly answers: { at: number }[] = [];
  /** The first input that the server did not understand. */
  broke: string | undefined;
  #buffer = Buffer.alloc(0);
  #phase: "header" | "title" | "picture" | "word" | "over" = "header";
  #name = "";
  #length = 0;
  #parts: Buffer[] = [];

  get isOver(): boolean {
    return this.#phase === "over";
  }

  arrive(bytes: Buffer, now: number): void {
    this.#buffer = Buffer.concat([this.#buffer, bytes]);
    while (this.#buffer.length > 0 && this.broke === undefined && !this.isOver) {
      const most = this.#phase === "picture" ? Math.floor(this.#length / 2) : 1024;
      const part = this.#buffer.subarray(0, most);
      this.#buffer = this.#buffer.subarray(part.length);
      this.#recv(part, now);
    }
  }

  #recv(part: Buffer, now: number): void {
    const text = part.toString("latin1");
    switch (this.#phase) {
      case "header":
        this.#phase = "title";
        break;
      case "title": {
        const found = /^(\d+)\|([^|]+)$/.exec(text);
        if (found === null) return void (this.broke = `title ${text}`);
        this.#length = Number(found[1]);
        this.#name = found[2]!;
        this.#parts = [];
        this.#phase = "picture";
        break;
      }
      case "picture":
        this.#parts.push(part);
        break;
      case "word":
        if (text === "continue") this.#phase = "title";
        else if (text === "over") this.#phase = "over";
        else this.broke = `word ${text}`;
        return;
      default:
        return;
    }
    this.answers.push({ at: now });
    if (this.#phase !== "picture") return;
    const picture = Buffer.concat(this.#parts);
    if (picture.length < this.#length) return;
    this.pictures.set(this.#name, picture);
    this.#phase = "word";
  }
}

/** Answers halves only, as `frames serve --article` does. */
class HalvesServer {
  readonly pictures = new Map<string, Buffer>();
  readonly answers: { at: number }[] = [];
  readonly broke = undefined;
  #now = 0;
  #name = "";
  #parts: Buffer[] = [];
  readonly #decoder: ArticleDecoder = new ArticleDecoder({
    onHeader: () => {},
    onPicture: (_, name) => {
      this.#name = name;
      this.#parts = [];
    },
    onPayload: (bytes) => void this.#parts.push(Buffer.from(bytes)),
    onAnswerDue: () => void this.answers.push({ at: this.#now }),
    onPictureComplete: () => {
      this.pictures.set(this.#name, Buffer.concat(this.#parts));
      this.answers.push({ at: this.#now });
    },
    onOver: () => {},
  });
  #isOpen = false;

  get isOver(): boolean {
    return this.#decoder.isOver;
  }

  arrive(bytes: Buffer, now: number): void {
    this.#now = now;
    this.#decoder.receive(bytes);
    if (this.#isOpen) return;
    this.#isOpen = true;
    this.#decoder.onQuiet();
    this.#decoder.onHeaderAnswered();
    this.answers.push({ at: now });
  }
}

/** Sends pictures through a network and returns the result. */
function deliver(
  pictures: ReadonlyMap<string, Buffer>,
  network: Network,
  server: PublishedServer | HalvesServer = new PublishedServer(),
) {
  let now = 1000;
  const sender = new ArticleSender("visible", "run7", 30_000);
  const toServer: Arrival[] = [];
  const toClient: Arrival[] = [];
  const put = (way: Arrival[], bytes: Buffer): void => {
    for (let rest = bytes; rest.length > 0;) {
      const part = rest.subarray(0, network.cut(rest.length));
      rest = rest.subarray(part.length);
      way.push({ at: Math.max(now + network.delay(), way.at(-1)?.at ?? 0), bytes: part });
    }
  };
  const waiting = [...pictures];
  let sends = 0;
  let largest = 0;
  let under: Buffer | undefined;
  for (let steps = 0; steps < 1_000_000; steps++) {
    const step = sender.step(now);
    if (step.action === "done") {
      for (const { bytes, at } of toServer.splice(0)) server.arrive(bytes, at);
      return { server, sends, largest, took: now - 1000 };
    }
    if (step.action === "next") {
      const next = waiting.shift();
      if (next === undefined) sender.finish();
      else {
        under = next[1];
        sender.begin(under.length, next[0]);
      }
      continue;
    }
    if (step.action === "give") {
      sender.pushPayload(new Uint8Array(under!));
      continue;
    }
    if (step.action === "stuck") throw new Error("it is stuck");
    if (step.action === "send") {
      sends++;
      if (step.what.endsWith(" bytes")) largest = Math.max(largest, step.bytes.length);
      put(toServer, Buffer.from(step.bytes));
      continue;
    }
    // Advance the clock to the next event.
    const next = Math.min(step.until, toServer[0]?.at ?? Infinity, toClient[0]?.at ?? Infinity);
    if (next === Infinity) throw new Error("nothing will ever happen");
    now = Math.max(now, next);
    if (toServer.length > 0 && toServer[0]!.at <= now) {
      const { bytes } = toServer.shift()!;
      server.arrive(bytes, now);
      for (const _ of server.answers.splice(0)) put(toClient, Buffer.from("ok"));
      if (server.broke !== undefined) throw new Error(`the server broke: ${server.broke}`);
    } else if (toClient.length > 0 && toClient[0]!.at <= now) {
      sender.receive(toClient.shift()!.bytes, now);
    } else sender.tick(now);
  }
  throw new Error("it never ended");
}

const random = randomFrom(7);
const sizes = [0, 2, 3, 4, 5, 1199, 2400, 2401, 9999, 10_000, 65_537, 300_001, 300_000, 2, 70_000];
const pictures = new Map(
  sizes.map((size, index) => {
    const bytes = Buffer.from(Array.from({ length: size }, () => Math.floor(random() * 256)));
    return [`${index + 1}.jpg`, bytes] as const;
  }),
);

/** Texts up to this length are not split, because no published server accepts a split text. */
const longestText = 40;

describe("ArticleSender", () => {
  const networks: Record<string, () => Network> = {
    "a wire": () => ({ cut: (length) => length, delay: () => 0 }),
    "a slow link": () => ({ cut: (length) => length, delay: () => 150 }),
    "a link that keeps packets of 1,240 bytes": () => ({
      cut: (length) => Math.min(length, 1240),
      delay: () => 1,
    }),
  };
  for (const stalled of [3, 8, 20, 60]) {
    networks[`a link that stalls for 5 s at part ${stalled}`] = () => {
      let parts = 0;
      return {
        cut: (length) => (length <= longestText ? length : Math.min(length, 1240)),
        delay: () => (++parts === stalled ? 5000 : 1),
      };
    };
  }
  for (let seed = 1; seed <= 40; seed++) {
    networks[`a network that cuts and delays at random, seed ${seed}`] = () => {
      const chance = randomFrom(seed);
      const most = 50 + chance() * 20_000;
      const late = chance() * 8;
      return {
        cut: (length) => (length <= longestText ? length : Math.ceil(chance() * most)),
        delay: () => chance() * late,
      };
    };
  }
  for (const [what, make] of Object.entries(networks)) {
    test(`an article sender delivers every byte through ${what}`, () => {
      const { server } = deliver(pictures, make());
      expect(server.isOver).toBe(true);
      expect([...server.pictures.keys()]).toEqual([...pictures.keys()]);
      for (const [name, bytes] of pictures) {
        expect([name, server.pictures.get(name)!.equals(bytes)]).toEqual([name, true]);
      }
    });
  }

  test("an article sender sends larger pieces on a link that keeps them whole, and small ones elsewhere", () => {
    const many = new Map(
      Array.from({ length: 12 }, (_, at) => [`${at}.jpg`, Buffer.alloc(200_000)]),
    );
    const wire = deliver(many, { cut: (length) => length, delay: () => 0 });
    expect(wire.largest).toBe(32 << 10);
    const packets = deliver(many, { cut: (length) => Math.min(length, 1240), delay: () => 0 });
    expect(packets.largest).toBeLessThanOrEqual(4800);
  });

  test("an article sender delivers every byte to a server that answers halves, and soon without waiting", () => {
    const many = new Map(
      Array.from({ length: 40 }, (_, at) => [`${at}.jpg`, Buffer.alloc(3000 + at, at)]),
    );
    const longest = new Map([...pictures, ...many]);
    for (const delay of [0, 1, 150]) {
      const network = { cut: (length: number) => length, delay: () => delay };
      const { server, took } = deliver(longest, network, new HalvesServer());
      expect(server.isOver).toBe(true);
      for (const [name, bytes] of longest) {
        expect([name, server.pictures.get(name)!.equals(bytes)]).toEqual([name, true]);
      }
      // Two pictures take 2 s more. The others take about as long as at a published server.
      const published = deliver(longest, network);
      expect(took).toBeLessThan(published.took + 6000);
    }
  });

  test("an article sender detects a server that never finishes a picture of one byte", () => {
    const sender = new ArticleSender("visible", "run7", 30_000);
    expect(sender.step(0)).toMatchObject({ action: "send", what: "visible|run7" });
    sender.receive(Buffer.from("ok"), 1);
    expect(sender.step(1)).toEqual({ action: "next" });
    sender.begin(1, "1.jpg");
    expect(sender.step(1)).toMatchObject({ action: "send", what: "1|1.jpg" });
    sender.receive(Buffer.from("ok"), 2);
    expect(sender.step(2)).toMatchObject({ action: "wait" });
    sender.receive(Buffer.from("okokok"), 42);
    expect(sender.step(42)).toEqual({ action: "stuck" });
  });

  test("an article sender waits no longer than its timeout for any answer", () => {
    const sender = new ArticleSender("visible", "run7", 30_000);
    sender.step(0);
    sender.tick(29_999);
    expect(() => sender.tick(30_000)).toThrow("No answer to the header arrived within 30 s");
    sender.receive(Buffer.from("ok"), 30_000);
    sender.begin(10, "1.jpg");
    sender.step(30_000);
    expect(() => sender.tick(60_000)).toThrow('No answer to "1.jpg" arrived within 30 s');
  });

  test("an article sender rejects any answer but ok, and any answer before it has sent something", () => {
    const sender = new ArticleSender("visible", "run7", 30_000);
    expect(() => sender.receive(Buffer.from("ok"), 0)).toThrow(FramesError);
    sender.step(0);
    expect(() => sender.receive(Buffer.from("FRAMES/1"), 0)).toThrow(FramesError);
  });
});

describe("streamFromFolder", () => {
  const streams: Record<string, string> = {
    run7: "run7",
    "data/run7": "data-run7",
    "/home/me/run7/": "home-me-run7",
    "./run7": "run7",
    "C:\\data\\run7": "data-run7",
    "a//b": "a-b",
  };
  test("the folder of an article client becomes a stream name without separators", () => {
    for (const [folder, stream] of Object.entries(streams))
      expect(streamFromFolder(folder)).toBe(stream);
  });

  test("a folder that cannot become a stream name stays as it is, so that the store refuses it", () => {
    for (const folder of ["..", "../x", "a/../b", ".hidden", "a/.git", "/", ".", "\\\\..\\x"]) {
      expect([folder, streamFromFolder(folder)]).toEqual([folder, folder]);
    }
  });
});
