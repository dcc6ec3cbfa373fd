import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { devNull } from "node:os";
import { join } from "node:path";
import { isTerminal } from "../../src/common/is-terminal.ts";

test("files, devices and closed descriptors are no terminals", () => {
  for (const path of [import.meta.path, devNull]) {
    const file = openSync(path, "r");
    expect([path, isTerminal(file)]).toEqual([path, false]);
    closeSync(file);
    expect(isTerminal(file)).toBe(false);
  }
});

const script = `
  import { isTerminal } from ${JSON.stringify(join(import.meta.dir, "../../src/common/is-terminal.ts"))};
  process.exitCode = isTerminal(1) ? 7 : 8;
`;

test("a pipe is no terminal", async () => {
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
  expect(await child.exited).toBe(8);
});

test.skipIf(process.platform === "win32")("a pseudo-terminal is a terminal", async () => {
  const terminal = new Bun.Terminal({ cols: 80, rows: 24, data() {} });
  const child = Bun.spawn([process.execPath, "-e", script], { terminal });
  expect(await child.exited).toBe(7);
  terminal.close();
});
