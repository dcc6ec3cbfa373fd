/** Options that say which keys a command uses. */
import type { Arguments } from "./arguments.ts";

/**
 * Reads `--key-file`, else `FRAMES_KEY`, and `--insecure`. No flag takes the key itself, because
 * `ps` shows arguments.
 */
export function keyOptions(args: Arguments): {
  key?: string;
  keyFile?: string;
  insecure: boolean;
} {
  const key = process.env["FRAMES_KEY"];
  const keyFile = args.text("key-file");
  return {
    insecure: args.isOn("insecure"),
    ...(keyFile !== undefined ? { keyFile } : key ? { key } : {}),
  };
}
