// Loaded by `bun test` before each file of tests (bunfig.toml).

import { setDefaultTimeout } from "bun:test";
import { testTimeoutMs } from "./time.ts";

setDefaultTimeout(testTimeoutMs);
