// The text that systemd reads as assignments. The socket is tried in e2e/running.test.ts.

import { expect, test } from "bun:test";
import { statusLine } from "../../src/net/systemd.ts";

test("a status is one line, whatever the path of the store is", () => {
  expect(statusLine("Frames are kept in /srv/größe")).toBe("STATUS=Frames are kept in /srv/größe");
  for (const status of ["/srv/a\nMAINPID=1", "/srv/a\r\nFDSTORE=1", "a\0\x1b[2J"]) {
    expect(statusLine(status)).not.toMatch(/\p{Cc}/u);
  }
  expect(statusLine("s3://id:S3cret@bucket")).not.toContain("S3cret");
});
