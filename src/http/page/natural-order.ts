/** Orders names as people read them: cam2 comes before cam10. */

const collator = new Intl.Collator("en", { numeric: true });

/** Compares two names. Only equal names compare as equal. */
export function compareNames(one: string, other: string): number {
  return collator.compare(one, other) || (one < other ? -1 : one > other ? 1 : 0);
}

/** A source and its stream. */
export interface SourceName {
  readonly stream: string;
  readonly source: string;
}

/** Compares sources by stream, then by name. */
export function compareSources(one: SourceName, other: SourceName): number {
  return compareNames(one.stream, other.stream) || compareNames(one.source, other.source);
}

/** Returns one text for a source and its stream. */
export function keyOf({ stream, source }: SourceName): string {
  return JSON.stringify([stream, source]);
}
