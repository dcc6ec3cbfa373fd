// Servers that send endlessly: `frames send` reads on with limited memory, and delivers.
//
// They have a file of their own, because a flood in this process keeps other servers from answering
// within the 10 s that the SPEC allows (section 7).

import { expect, test } from "bun:test";

import { errors } from "../../src/errors.ts";
import { type Case, expectEnd, table } from "../helper/hostile-case.ts";
import {
  binary,
  error as errorOf,
  json,
  names,
  type Peer,
  preface,
  sendTo,
  welcome,
} from "../helper/scripted-server.ts";
import { type } from "../wire/vectors.ts";

const pings = Buffer.concat(Array<Buffer>(1000).fill(json(type.PING, { time: "0" })));

const large = Object.fromEntries(names.map((name) => [name, 8_000_000]));

table("frames send succeeds with a server that", [
  {
    what: "sends 20,000 PINGs",
    async script(peer) {
      peer.say(welcome());
      await peer.flood(json(type.PING, { time: "0" }), 20_000 * 24);
      await peer.agree();
    },
    isProcess: true,
  },
  ...[1 << 20, 0].map((size): Case => ({
    what: `sends many skippable messages of ${size} bytes`,
    async script(peer) {
      const one = binary(200, Buffer.alloc(size), { flags: 0x80, source: 7 });
      const skipped = Buffer.concat(Array<Buffer>(size === 0 ? 10_000 : 1).fill(one));
      peer.say(preface);
      // WELCOME must come within 10 s (SPEC section 7), also on a busy machine.
      await peer.flood(skipped, 10 * skipped.length);
      peer.say(welcome().subarray(preface.length));
      await peer.flood(skipped, 100 * skipped.length);
      await peer.agree();
    },
    isProcess: true,
  })),
]);

test.concurrent(
  "frames send keeps its memory bounded when a server reads nothing and sends 64 MB of PINGs",
  async () => {
    // Each of the 2.7 million PINGs has an answer longer than itself.
    const script = async (peer: Peer): Promise<void> => {
      if (peer.turn > 0) return peer.say(preface, errorOf(errors.busy.wireCode));
      peer.ignore();
      peer.say(welcome());
      await peer.flood(pings, 64e6);
      peer.reset();
    };
    const outcome = await sendTo(script, { files: large });
    expectEnd(outcome, { what: "", script, error: "busy", connections: 2 });
    expect(outcome.left).toEqual(names);
  },
);
