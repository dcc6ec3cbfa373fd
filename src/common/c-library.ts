/** Loads functions of the C library on Linux, for what Bun has no interface to. */
import { dlopen, type FFIFunction, read } from "bun:ffi";

/** Returns the functions, or `undefined` if this system is not Linux or has no known C library. */
export function openCLibrary<Functions extends Record<string, FFIFunction>>(
  functions: Functions,
): ReturnType<typeof dlopen<Functions>>["symbols"] | undefined {
  if (process.platform !== "linux") return undefined;
  for (const name of libraryNames()) {
    try {
      return dlopen(name, functions).symbols;
    } catch {
      // Try the next library.
    }
  }
  return undefined;
}

/** File names of the GNU C library and of musl. */
export function libraryNames(): readonly string[] {
  const processor = process.arch === "arm64" ? "aarch64" : "x86_64";
  return ["libc.so.6", `libc.musl-${processor}.so.1`];
}

/** Declaration of `__errno_location` for `openCLibrary`. Both libraries have it. */
export const errnoFunction = { __errno_location: { args: [], returns: "ptr" } } as const;

/** Returns the error number of the last call that failed. */
export function lastErrno(library: { __errno_location(): unknown }): number {
  return read.i32(library.__errno_location() as Parameters<typeof read.i32>[0], 0);
}
