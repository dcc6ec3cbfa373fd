import { expect, test } from "bun:test";
import { join } from "node:path";
import { environment } from "../helper/program.ts";

const path = JSON.stringify(join(import.meta.dir, "../../src/common/compilation.ts"));

test("functions that are compiled cheaply never reach the last compiler, and others do", async () => {
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

test("a process that was started to compile late compiles as usual after 2,500 frames", async () => {
  const program = `
    import { numberOfDFGCompiles } from "bun:jsc";
    import { countBegunFrame } from ${path};
    Bun.unsafe.setJITPolicy(1e9);
    function add(a, b) { return a + b; }
    const isCompiled = () => {
      for (let i = 0; i < 300_000 && numberOfDFGCompiles(add) === 0; i++) add(i, 1);
      return numberOfDFGCompiles(add) > 0;
    };
    for (let i = 0; i < 2499; i++) countBegunFrame();
    console.log(isCompiled());
    countBegunFrame();
    for (let tries = 0; tries < 100 && !isCompiled(); tries++) await Bun.sleep(1);
    console.log(isCompiled());`;
  const child = Bun.spawn([process.execPath, "-e", program], {
    env: environment(),
    stdout: "pipe",
  });
  expect(await new Response(child.stdout).text()).toBe("false\ntrue\n");
  expect(await child.exited).toBe(0);
});
