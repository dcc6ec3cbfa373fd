/** Exit status of a transfer that ended with a summary; the codes are rsync's. */
import type { SendSummary } from "../../client/send.ts";
import { errors } from "../../errors.ts";

/** Returns 0 if everything was delivered and, with `--move`, removed at the sender. */
export function exitCodeOf(
  summary: Pick<SendSummary, "interrupted" | "reasons"> & { readonly notRemoved?: number },
): number {
  if (summary.interrupted) return errors.interrupted.exitCode;
  const reasons = Object.keys(summary.reasons);
  if ((summary.notRemoved ?? 0) > 0) return errors["not-delivered"].exitCode;
  if (reasons.length === 0) return 0;
  const vanished = reasons.every((reason) => reason === "vanished");
  return errors[vanished ? "vanished" : "not-delivered"].exitCode;
}
