/**
 * The library: `serve`, `send` and `receive` for programs, as the commands of the same names do.
 *
 * @module
 */
export { sendArticle } from "./client/article/send.ts";
export { type ErrorName, errors, FramesError } from "./errors.ts";
export type { Frame, FrameDescription } from "./frame.ts";
export type { CapturedFrames, PlanOptions, Sendable } from "./client/plan/options.ts";
export { send, type SendSummary } from "./client/send.ts";
export type { SendOptions } from "./client/send-options.ts";
export type { NotRemoved, SendEvent } from "./client/send-event.ts";
export type { UndeliveredRange, SourceReport } from "./client/undelivered.ts";
export { FrameFeed } from "./source/live/frame-feed.ts";
export type { ReceivedFrame } from "./client/callback-sink.ts";
export type { SegmentLimits } from "./client/recording-target.ts";
export { receive, type ReceiveDestination, type ReceiveSummary } from "./client/receive.ts";
export type { ReceiveEvent, ReceiveOptions } from "./client/receive-options.ts";
export type { ServeEvent, StoredEvent } from "./server/serve-event.ts";
export { serve, type ServeOptions } from "./server/serve.ts";
export type { Server } from "./server/server-options.ts";
export type { SourceProgress, Undelivered } from "./protocol/progress.ts";
export type { CapturedFrame } from "./source/live/iterable-source.ts";
export type { SkippedPath, SourceEvent } from "./source/source-event.ts";
export { version } from "./version.ts";
export type { Done } from "./wire/messages.ts";
