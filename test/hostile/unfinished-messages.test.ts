// Peers that send nearly all of a message, against the compiled server, and stay. Meanwhile one
// honest sender continues, another one completes, and the server's memory stays small.
//
// Covers: server/buffer-budget.ts

import { testCrowds } from "../helper/hostile-crowd.ts";
import { hello, json, message, preface } from "../helper/hostile.ts";
import { type } from "../wire/vectors.ts";

const most = 65_536;
const padding = "y".repeat(most - 19);
/** The longest JSON message, without its last bytes. */
const nearly = (kind: number) =>
  json(kind, `{"time":"0","x":"${padding}"}`).subarray(0, most - 100);

testCrowds([
  {
    what: "2,000 peers that send nearly all of the longest HELLO",
    count: 2000,
    say: () => Buffer.concat([preface, nearly(type.HELLO)]),
    isLetIn: false,
  },
  {
    what: "4,000 peers that send nearly all of the longest message",
    count: 4000,
    say: ({ guarded }, peer, index) => {
      const said = Buffer.concat([preface, hello(guarded, { stream: `${index}` })]);
      return Buffer.concat([peer.greeting(said), nearly(type.PING)]);
    },
    isLetIn: true,
  },
  {
    what: "4,000 peers that announce the longest message and send a byte of it",
    only: false,
    count: 4000,
    say: ({ guarded }, peer, index) => {
      const said = Buffer.concat([preface, hello(guarded, { stream: `${index}` })]);
      const begun = message(type.PING, "", { length: most });
      return Buffer.concat([peer.greeting(said), begun, Buffer.from("{")]);
    },
    isLetIn: true,
  },
]);
