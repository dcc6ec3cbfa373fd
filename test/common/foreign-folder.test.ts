// Folders that another user may have prepared. Only root can make files of another user.

import { describe, expect, test } from "bun:test";
import { chmodSync, lchownSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { checkNotForeign, isOwnFolder } from "../../src/common/foreign-folder.ts";
import { FramesError } from "../../src/errors.ts";
import { temporaryFolder } from "../helper/program.ts";

const nobody = 65534;

/** A folder in which all users can create files, as `/tmp`. */
function sharedFolder(): string {
  const folder = join(temporaryFolder(), "shared");
  mkdirSync(folder);
  chmodSync(folder, 0o1777);
  return folder;
}

function makeForeign(path: string): void {
  lchownSync(path, nobody, nobody);
}

function refusal(path: string): string | undefined {
  try {
    checkNotForeign(path, "Cannot use it", "choose another");
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(FramesError);
    expect((error as FramesError).code).toBe("usage");
    return (error as FramesError).message;
  }
}

test("a folder of this user in a shared folder is used, and so is one that does not exist", () => {
  const folder = sharedFolder();
  mkdirSync(join(folder, "own"));
  expect(refusal(join(folder, "own"))).toBeUndefined();
  expect(refusal(join(folder, "new/below"))).toBeUndefined();
  expect(isOwnFolder(join(folder, "own"))).toBe(true);
  expect(isOwnFolder(join(folder, "new"))).toBe(false);
});

describe.skipIf(process.getuid?.() !== 0)("with files of another user", () => {
  test("a folder that another user made in a shared folder is refused, with all below it", () => {
    const path = join(sharedFolder(), "theirs");
    mkdirSync(join(path, "below"), { recursive: true });
    makeForeign(path);
    const message = `Cannot use it: ${path} belongs to another user, who may have put links into it; choose another`;
    for (const used of [path, join(path, "below"), join(path, "new/file")]) {
      expect(refusal(used)).toBe(message);
    }
    expect(isOwnFolder(path)).toBe(false);
  });

  test("a folder of another user that root made for that user is used", () => {
    const path = join(temporaryFolder(), "theirs");
    mkdirSync(path);
    makeForeign(path);
    expect(refusal(join(path, "spool"))).toBeUndefined();
  });

  test("a folder is used if the owner of its parent made it, as on a disk whose files have one owner", () => {
    const disk = join(temporaryFolder(), "disk");
    mkdirSync(join(disk, "store"), { recursive: true });
    for (const path of [disk, join(disk, "store")]) makeForeign(path);
    chmodSync(disk, 0o777);
    expect(refusal(join(disk, "store"))).toBeUndefined();
  });

  test("a link of another user in a shared folder is refused, wherever it leads", () => {
    const [own, path] = [temporaryFolder(), join(sharedFolder(), "link")];
    symlinkSync(own, path);
    makeForeign(path);
    expect(refusal(join(path, "spool"))).toStartWith(`Cannot use it: ${path} belongs`);
    expect(isOwnFolder(path)).toBe(false);
  });

  test("a link of this user is followed, and its target is held to the same rule", () => {
    const theirs = join(sharedFolder(), "theirs");
    mkdirSync(theirs);
    const link = join(temporaryFolder(), "link");
    symlinkSync(theirs, link);
    expect(refusal(join(link, "spool"))).toBeUndefined();
    makeForeign(theirs);
    expect(refusal(join(link, "spool"))).toStartWith(`Cannot use it: ${theirs} belongs`);
  });
});
