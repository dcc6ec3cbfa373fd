import { expect, test } from "bun:test";
import { encodeControl, encodeReceipt } from "../../src/wire/encode.ts";
import { MessageType } from "../../src/wire/messages.ts";
import {
  compareAll,
  messagesOf,
  mutate,
  Random,
  seedOf,
  type ServedFrames,
  withstandsClient,
  withstandsProvider,
  withstandsReceiver,
  withstandsServer,
} from "./fuzz.ts";
import { conversations, vectors } from "./vectors.ts";

/** Total number of inputs. One in five goes to a receiver or sender, the others to the decoder. */
const inputs = Number(process.env["FRAMES_FUZZ_INPUTS"] ?? 100_000);
const seed = Number(process.env["FRAMES_FUZZ_SEED"] ?? 20261122);
const forSessions = Math.floor(inputs / 5);

console.log(`fuzz: FRAMES_FUZZ_SEED=${seed} FRAMES_FUZZ_INPUTS=${inputs}`);

/** Vectors short enough to be mutated thousands of times. */
const short = [...vectors, ...conversations.flatMap(({ client, server }) => [client, server])]
  .filter(({ hex }) => hex.length < 3000)
  .map(({ hex }) => messagesOf(Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"))));

/** Concatenates and mutates a few vectors. */
function make(random: Random): Uint8Array {
  const said = random.pick(short).slice();
  while (said.length < 3 || random.below(3) === 0) said.push(...random.pick(short));
  return mutate(said, random);
}

function report(index: number, input: Uint8Array, wrong: string): string {
  const hex = Buffer.from(input).toString("hex");
  return `FRAMES_FUZZ_SEED=${seed}, input ${index}: ${wrong}\n${hex}`;
}

test(`the decoder and the oracle agree on ${inputs - forSessions} mutated inputs`, () => {
  const found = compareAll(inputs - forSessions, seed, make);
  if (found !== undefined) throw new Error(report(found.index, found.input, found.wrong));
});

/** Frames of the client's sources in each conversation. */
const served: ServedFrames[] = [
  { frames: [4, 2] },
  { frames: [3] },
  { frames: [4, 2], resumes: true },
];

const doneOfSix = encodeControl(MessageType.done, 0, {
  ...{ frames: 6, stored: 4, present: 1 },
  ...{ refused: 1, aborted: 0 },
});

/** Messages of both sides of each conversation, and the client's frames. */
const dialogues = conversations.map(({ client, server }, index) => {
  const [said, answered] = [client, server].map(({ hex }) =>
    messagesOf(Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"))),
  );
  // The client of the first conversation aborts a frame, which this sender does not.
  if (index === 0) answered!.splice(-1, 1, doneOfSix);
  return { said: said!, answered: answered!, has: served[index]! };
});

/** Milliseconds between chunks. The longer ones trigger PINGs and timeouts. */
const paces = [10, 300, 10_000] as const;

/** Mutates the messages after the handshake, and sometimes the handshake too. */
function mutateAfterGreeting(said: readonly Uint8Array[], random: Random): Uint8Array {
  if (random.below(4) === 0) return mutate(said, random);
  const rest = said.slice(1);
  if (random.below(4) === 0) rest.splice(random.below(rest.length), 0, ...random.pick(short));
  return Buffer.concat([said[0]!, mutate(rest, random)]);
}

test("a receiver and a sender complete the conversations without mutations", async () => {
  for (const { said, answered, has } of dialogues) {
    for (let index = 0; index < 50; index++) {
      expect(await withstandsClient(Buffer.concat(said), new Random(index), 10)).toBeUndefined();
      const bytes = Buffer.concat(answered);
      const { wrong, isDone } = await withstandsServer(bytes, has, new Random(index), 10);
      expect(wrong).toBeUndefined();
      expect(isDone).toBe(true);
    }
  }
});

test("a receiver withstands a SOURCE without a name behind an OFFER", async () => {
  const said = dialogues[2]!.said.with(3, encodeControl(MessageType.source, 2, {} as never));
  for (let index = 0; index < 500; index++) {
    expect(await withstandsClient(Buffer.concat(said), new Random(index), 10)).toBeUndefined();
  }
});

test(`a receiver withstands ${forSessions >> 1} mutated clients`, async () => {
  for (let index = 0; index < forSessions >> 1; index++) {
    const random = new Random(seedOf(seed ^ 1, index));
    const input = mutateAfterGreeting(random.pick(dialogues).said, random);
    const wrong = await withstandsClient(input, random, random.pick(paces)).catch(String);
    if (wrong !== undefined) throw new Error(report(index, input, wrong));
  }
});

test(`a sender withstands ${forSessions >> 1} mutated servers`, async () => {
  for (let index = 0; index < forSessions >> 1; index++) {
    const random = new Random(seedOf(seed ^ 2, index));
    const { answered, has } = random.pick(dialogues);
    const input = mutateAfterGreeting(answered, random);
    const { wrong } = await withstandsServer(
      input,
      { ...has, checksum: random.below(4) === 0 },
      random,
      random.pick(paces),
    );
    if (wrong !== undefined) throw new Error(report(index, input, wrong));
  }
});

/** Messages of a receiving client after its handshake. */
const takes = [
  ...[0, 3, 3, 9, 20].map((frames) => encodeReceipt(frames)),
  encodeControl(MessageType.refused, 1, { sequence: 4, error: 35, message: "taken" }),
  encodeControl(MessageType.ping, 0, { time: "1" }),
  encodeControl(MessageType.pong, 0, { time: "1", clock: "2" }),
  encodeControl(MessageType.done, 0, {
    frames: 16,
    stored: 15,
    present: 0,
    refused: 1,
    aborted: 0,
  }),
  encodeControl(MessageType.error, 0, { error: 8, message: "full" }),
];

/** Messages of a sending server before END. The frames are those of the first conversation. */
const gives = [
  encodeControl(MessageType.welcome, 0, {
    window: { bytes: 1, frames: 1 },
    limits: { frame: 1, sources: 1, unfinished: 1 },
    identity: "i",
    resumed: true,
  }),
  ...dialogues[0]!.said.slice(1, -1),
  encodeControl(MessageType.gone, 1, { sequence: 9, name: "gone" }),
  encodeControl(MessageType.lost, 1, { ranges: [[10, 12]], error: 51 }),
  encodeControl(MessageType.cursor, 0, { cursor: "c" }),
  encodeControl(MessageType.ping, 0, { time: "1" }),
  dialogues[0]!.said.at(-1)!,
];

test(`both ends withstand ${forSessions >> 2} mutated peers when the client receives`, async () => {
  for (let index = 0; index < forSessions >> 3; index++) {
    const random = new Random(seedOf(seed ^ 3, index));
    const said = takes.filter(() => random.below(3) > 0);
    const input = mutate(said.length > 0 ? said : takes, random);
    const wrong = await withstandsReceiver(input, random, random.pick(paces));
    if (wrong !== undefined) throw new Error(report(index, input, wrong));
  }
  for (let index = 0; index < forSessions >> 3; index++) {
    const random = new Random(seedOf(seed ^ 4, index));
    const input = mutateAfterGreeting(gives, random);
    const wrong = withstandsProvider(input, random, random.pick(paces));
    if (wrong !== undefined) throw new Error(report(index, input, wrong));
  }
});
