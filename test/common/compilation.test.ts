import { expect, test } from "bun:test";
import { join } from "node:path";
import { environment } from "../helper/program.ts";

test("functions that are compiled cheaply never reach the last compiler, and others do", async () => {
  const path = JSON.stringify(join(import.meta.dir, "../../src/common/compilation.ts"));
  const program = `
    import { compileCheaply } from ${path};
    class Hot {
      cheap(n) { let sum = 0; for (let i = 0; i < n; i++) sum += i % 7; return sum; }
      costly(n) { let sum = 0; for (let i = 0; i < n; i++) sum += i % 7; return sum; }
    }
    compileCheaply(Hot.prototype.cheap);
    const hot = new Hot();
    for (let i = 0; i < 20_000; i++) hot.cheap(1000) + hot.costly(1000);`;
  const child = Bun.spawn([process.execPath, "-e", program], {
    env: environment({ BUN_JSC_reportFTLCompileTimes: "1" }),
    stdout: "pipe",
    stderr: "pipe",
  });
  const output =
    (await new Response(child.stdout).text()) + (await new Response(child.stderr).text());
  expect(await child.exited).toBe(0);
  expect(output).toContain("Optimized costly#");
  expect(output).not.toContain("Optimized cheap#");
});
