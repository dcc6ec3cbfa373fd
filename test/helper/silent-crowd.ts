// A crowd that connects and says nothing, in a process of its own, since each of it is an open file.
//
//   bun test/helper/silent-crowd.ts PORT COUNT [tls]
//
// It says "open" when all have connected, over TLS those who have shaken hands, and stays until its standard
// input ends; then it says how many were sent away.

export {};

const [port, count, tls] = process.argv.slice(2);

/** So many connect at a time. */
const atOnce = 50;

let closed = 0;
let begun = 0;

async function knock(): Promise<void> {
  while (begun < Number(count)) {
    begun++;
    const { promise, resolve } = Promise.withResolvers<void>();
    const connecting = Bun.connect({
      hostname: "127.0.0.1",
      port: Number(port),
      ...(tls === undefined ? {} : { tls: { rejectUnauthorized: false } }),
      socket: {
        open: () => void (tls === undefined && resolve()),
        handshake: () => resolve(),
        data() {},
        error() {},
        close() {
          closed++;
          resolve();
        },
      },
    });
    await Promise.all([connecting, promise]);
  }
}

await Promise.all(Array.from({ length: atOnce }, knock));
console.log("open");
for await (const _ of Bun.stdin.stream());
console.log(closed);
process.exit(0);
