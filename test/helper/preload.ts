// Loaded by `bun test` before each test file (bunfig.toml).

import { setDefaultTimeout } from "bun:test";
import { testTimeoutMs } from "./time.ts";

setDefaultTimeout(testTimeoutMs);
