// Helper for values that must be refused.

import { FramesError } from "../../src/errors.ts";

/** Returns the `FramesError` that `act` throws. */
export function refusal(act: () => unknown): FramesError {
  try {
    act();
  } catch (error) {
    if (error instanceof FramesError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}
