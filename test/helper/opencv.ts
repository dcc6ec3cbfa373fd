// OpenCV of Debian's Python, as a reader of live pictures.

import { peerMissing } from "./program.ts";

const python = "/usr/bin/python3";

/** Empty if OpenCV is there; otherwise the beginning of a test's title. */
export const needsOpenCv =
  !peerMissing(python) && Bun.spawnSync([python, "-c", "import cv2"]).exitCode === 0
    ? ""
    : "skipped: needs python3-opencv: ";

const script = `
import cv2, sys
source = cv2.VideoCapture(sys.argv[1])
shapes = set()
for number in range(100):
    there, frame = source.read()
    if not there: sys.exit(f"only {number} frames")
    shapes.add(frame.shape)
print(shapes)`;

/** Reads a hundred frames. Returns the set of their shapes, and what OpenCV complained of. */
export async function readHundredFrames(url: string): Promise<[shapes: string, errors: string]> {
  const child = Bun.spawn([python, "-c", script, url], {
    ...{ stdout: "pipe", stderr: "pipe", timeout: 60_000 },
  });
  return await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
}
