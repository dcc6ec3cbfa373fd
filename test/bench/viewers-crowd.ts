// Those who look on: `viewers-crowd.ts HOST:PORT COUNT`. Half of them read nothing. They stay until they are killed.

import { connect } from "node:net";

const [address, count] = [Bun.argv[2]!, Number(Bun.argv[3])];
const [host, port] = address.split(":") as [string, string];
const path = "/streams/live/sources/visible/latest.mjpeg";

async function read(): Promise<void> {
  for (;;) {
    try {
      const answer = await fetch(`http://${address}${path}`);
      // There is nothing to see before the first frame came.
      if (answer.ok) for await (const _ of answer.body!);
    } catch {
      return;
    }
    await Bun.sleep(50);
  }
}

/** Asks as soon as there is something, and never reads the answer. */
async function stare(number: number): Promise<void> {
  while (!(await fetch(`http://${address}${path}`, { method: "HEAD" })).ok) await Bun.sleep(50);
  const asked = number % 5 === 0 ? "/events" : path;
  const socket = connect({ host, port: Number(port) });
  socket.on("error", () => {});
  socket.pause();
  socket.write(`GET ${asked} HTTP/1.1\r\nHost: ${address}\r\n\r\n`);
}

for (let number = 0; number < count; number++) void (number % 2 === 0 ? read() : stare(number));
