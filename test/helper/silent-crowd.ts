// Opens connections that send nothing. Runs in a process of its own, because each needs an open
// file.
//
//     bun test/helper/silent-crowd.ts PORT COUNT [tls]
//
// Prints "open" when all are connected, with TLS after the handshake. When its standard input ends,
// prints how many the server has closed.

export {};

const [port, count, tls] = process.argv.slice(2);

/** Number of concurrent connection attempts. */
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
