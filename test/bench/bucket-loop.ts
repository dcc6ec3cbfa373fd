// Writes frames into a bucket in a plain loop with Bun's client, AT-ONCE objects in parallel.
// Prints the seconds taken.
//
//     bun bucket-loop.ts BUCKET PREFIX FRAMES BYTES AT-ONCE

const [, , bucket = "", prefix = "", frames = "", bytes = "", atOnce = ""] = Bun.argv;
const client = new Bun.S3Client({
  bucket,
  endpoint: process.env["AWS_ENDPOINT_URL_S3"]!,
  region: process.env["AWS_REGION"]!,
  accessKeyId: process.env["AWS_ACCESS_KEY_ID"]!,
  secretAccessKey: process.env["AWS_SECRET_ACCESS_KEY"]!,
});
// Uses different frames, because a single frame would stay in the processor's cache.
const different = Array.from({ length: Math.min(256, Number(frames)) }, () => {
  const frame = new Uint8Array(Number(bytes));
  for (let at = 0; at < frame.length; at += 65_536) {
    crypto.getRandomValues(frame.subarray(at, Math.min(frame.length, at + 65_536)));
  }
  return frame;
});
let next = 0;
const began = performance.now();
await Promise.all(
  Array.from({ length: Number(atOnce) }, async () => {
    while (next < Number(frames)) {
      const frame = different[next % different.length]!;
      const name = String(++next).padStart(6, "0");
      await client.write(`${prefix}/visible/${name}.raw`, frame, { type: "image/x-raw" });
    }
  }),
);
console.log((performance.now() - began) / 1000);
export {};
