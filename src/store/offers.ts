/** Answers offered frames in their order, for a store of any kind. */
import { FramesError } from "../errors.ts";
import type { OfferedFrame, OfferStatus } from "../frame.ts";

/** Statuses of offered frames that the sender may still send. */
const pendingStatuses: ReadonlySet<OfferStatus> = new Set(["wanted", "needsChecksum"]);

/**
 * Compares offered frames one by one. Stops before the first frame whose status is undefined.
 *
 * @param markAccounted called for the numbers of frames that the sender will not send, so that they
 * are no gaps
 */
export function compareOffers(
  offered: readonly OfferedFrame[],
  compare: (offered: OfferedFrame) => OfferStatus | undefined,
  markAccounted: (first: number, last: number) => void,
): OfferStatus[] {
  const statuses: OfferStatus[] = [];
  let range: { readonly first: number; last: number } | undefined;
  const endRange = () => {
    if (range !== undefined) markAccounted(range.first, range.last);
    range = undefined;
  };
  for (const frame of offered) {
    const status = orWanted(() => compare(frame));
    if (status === undefined) break;
    statuses.push(status);
    const { sequence } = frame;
    const isPending = pendingStatuses.has(status);
    if (isPending || sequence !== (range?.last ?? 0) + 1) endRange();
    if (isPending) continue;
    range ??= { first: sequence, last: sequence };
    range.last = sequence;
  }
  endRange();
  return statuses;
}

function orWanted<T>(act: () => T): T | "wanted" {
  try {
    return act();
  } catch (error) {
    // The sender sends the frame, and `begin` or its writer then refuses it with the reason.
    if (error instanceof FramesError && error.wireCode >= 32) return "wanted";
    throw error;
  }
}
