// Starts COUNT viewers: `viewers-crowd.ts HOST:PORT COUNT`. Half of them never read the response.
// They run until they are killed.

import { connect } from "node:net";

const [address, count] = [Bun.argv[2]!, Number(Bun.argv[3])];
const [host, port] = address.split(":") as [string, string];
const path = "/streams/live/sources/visible/latest.mjpeg";

async function read(): Promise<void> {
  for (;;) {
    try {
      const answer = await fetch(`http://${address}${path}`);
      // Before the first frame the server answers with an error.
      if (answer.ok) for await (const _ of answer.body!);
    } catch {
      return;
    }
    await Bun.sleep(50);
  }
}

/** Sends a request once there is a frame, and never reads the response. */
async function requestWithoutReading(number: number): Promise<void> {
  while (!(await fetch(`http://${address}${path}`, { method: "HEAD" })).ok) await Bun.sleep(50);
  const target = number % 5 === 0 ? "/events" : path;
  const socket = connect({ host, port: Number(port) });
  socket.on("error", () => {});
  socket.pause();
  socket.write(`GET ${target} HTTP/1.1\r\nHost: ${address}\r\n\r\n`);
}

for (let number = 0; number < count; number++)
  void (number % 2 === 0 ? read() : requestWithoutReading(number));
