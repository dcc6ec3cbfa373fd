// What comes of a value that has to be refused.

import { FramesError } from "../../src/errors.ts";

/** The error of a value that is refused. */
export function refusal(act: () => unknown): FramesError {
  try {
    act();
  } catch (error) {
    if (error instanceof FramesError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}
