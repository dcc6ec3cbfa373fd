// The URL of a camera in a file, and what is said of it.

import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { plan } from "../../../src/client/plan/plan.ts";
import { readUrlFile } from "../../../src/client/plan/url-file.ts";
import type { FramesError } from "../../../src/errors.ts";
import { needs } from "../../helper/ffmpeg.ts";

const folder = mkdtempSync(join(tmpdir(), "frames-url-"));
afterAll(() => rmSync(folder, { recursive: true }));

function urlFile(text: string, mode = 0o600): string {
  const path = join(folder, "gate.url");
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

function failure(path: string): FramesError {
  try {
    readUrlFile(path);
  } catch (error) {
    return error as FramesError;
  }
  throw new Error("The file was read");
}

test("the URL of a camera is read from a file with one line, besides comments", () => {
  const url = "rtsp://admin:Pa@ss@camera/1?token=x";
  for (const text of [url, `${url}\n`, `# gate\r\n\r\n  ${url} \r\n`]) {
    expect(readUrlFile(urlFile(text))).toBe(url);
  }
});

test.skipIf(process.platform === "win32")("a file that others can read is refused", () => {
  for (const mode of [0o644, 0o640, 0o602]) {
    const { code, message } = failure(urlFile("rtsp://camera/1\n", mode));
    expect([code, message]).toEqual(["usage", expect.stringContaining("other users can read it")]);
  }
});

test("a file without a URL is refused, and what it holds is not shown", () => {
  const texts = [
    "",
    "# only\n",
    "/etc/S3cret\n",
    "rtsp://a/1\nrtsp://S3cret/1\n",
    "file:///S3cret",
  ];
  for (const text of [
    ...texts,
    "frames_key_S3cret",
    "rtsp://admin:a S3cret@camera/1",
    "\0\0S3cret",
  ]) {
    const { code, message } = failure(urlFile(text));
    expect(code).toBe("usage");
    expect(message).not.toContain("S3cret");
  }
  expect(failure(join(folder, "none")).code).toBe("missing");
});

test("messages name the file and not its URL", async () => {
  const path = urlFile("rtsp://127.0.0.1:1/S3cretPath?S3cret\n");
  const source = `gate=@${path}`;
  const refused = [{}, { stream: "site", camera: ["64x48"] }, { stream: "site", raw: "1x1:gray" }];
  const opened = needs === "" ? [{ stream: "site" }] : [];
  for (const options of [...refused, ...opened]) {
    const error = await plan([], { source, ...options }, 0).catch((thrown: unknown) => thrown);
    expect((error as FramesError).message).toContain(`@${path}`);
    expect((error as FramesError).message).not.toContain("S3cret");
  }
});
