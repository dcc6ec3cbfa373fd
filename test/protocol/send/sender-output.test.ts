// What a sender keeps for its server and for its caller.

import { expect, test } from "bun:test";
import { FramesError } from "../../../src/errors.ts";
import { OutgoingSource } from "../../../src/protocol/send/outgoing-source.ts";
import { SenderOutput } from "../../../src/protocol/send/sender-output.ts";
import { MessageType } from "../../../src/wire/messages.ts";
import { decodeAll } from "../../wire/oracle.ts";
import { type } from "../../wire/vectors.ts";
import { MemoryFrame, MemorySource } from "../memory.ts";

const typesOf = ({ messages }: SenderOutput) =>
  decodeAll(Buffer.concat(messages)).messages.map((message) => message.type);

test("events are given once, in their order", () => {
  const output = new SenderOutput({ messages: true });
  output.send(MessageType.ping, 0, { time: "5" });
  output.trace("<-", "RECEIPT 3");
  expect(output.takeEvents()).toEqual([
    { type: "message", direction: "->", line: 'PING {"time":"5"}' },
    { type: "message", direction: "<-", line: "RECEIPT 3" },
  ]);
  expect(output.takeEvents()).toEqual([]);
});

test("messages are no events unless they are asked for", () => {
  const output = new SenderOutput({});
  output.send(MessageType.ping, 0, { time: "5" });
  output.trace("<-", "RECEIPT 3");
  expect(output.takeEvents()).toEqual([]);
  expect(typesOf(output)).toEqual([type.PING]);
});

test("ERROR is the last message", () => {
  const output = new SenderOutput({});
  const source = new OutgoingSource(1, new MemorySource("a", []));
  output.declareSource(source, new MemoryFrame(1, 10));
  output.close(new FramesError("interrupted").wireFields);
  output.declareSource(source, new MemoryFrame(2, 10));
  output.send(MessageType.ping, 0, { time: "5" });
  expect(typesOf(output)).toEqual([type.SOURCE, type.ERROR]);
});
