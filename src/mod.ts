/**
 * The library: what the commands `frames serve` and `frames send` do, for programs.
 *
 * @module
 */
export { type ErrorName, errors, FramesError } from "./errors.ts";
export type { Frame, FrameDescription } from "./frame.ts";
export { send, type Sendable, type SendEvent, type SendOptions, type SendSummary } from "./send.ts";
export {
  serve,
  type ServeEvent,
  type ServeOptions,
  type Server,
  type StoredEvent,
} from "./serve.ts";
export type { SourceProgress } from "./session/outlet.ts";
export type { Undelivered } from "./session/sender.ts";
export type { CapturedFrame } from "./source/iterable.ts";
export { version } from "./version.ts";
