/** Choices that the browser remembers from visit to visit. */
/// <reference lib="dom" />
import { isPaletteName, type PaletteName } from "../picture/palette.ts";

/** Sizes of the tiles on the wall; `fit` shows all of them in the window. */
export const tileSizes = ["fit", "small", "medium", "large"] as const;
export type TileSize = (typeof tileSizes)[number];

const timeZones = ["UTC", "local"] as const;
export type TimeZone = (typeof timeZones)[number];

/** Limit of each list, in names and in UTF-16 code units. Above it the oldest names are dropped. */
const maxNames = 1000;
const maxLength = 100_000;

const storageKey = "frames";

interface StoredChoices {
  /** Sources in the order of the wall, by `keyOf`. */
  order: readonly string[];
  /** Sources that the wall does not show, by `keyOf`. */
  hidden: readonly string[];
  /** Palettes of grey pictures, by `keyOf`. */
  palettes: readonly (readonly [string, PaletteName])[];
  tileSize: TileSize;
  timeZone: TimeZone;
  /** Time of the newest problem that was cleared, in ns since 1970. */
  clearedProblem: string;
}

export class Preferences {
  readonly #storage: Pick<Storage, "getItem" | "setItem">;
  readonly #choices: StoredChoices;

  constructor(storage: Pick<Storage, "getItem" | "setItem">) {
    this.#storage = storage;
    this.#choices = parseChoices(this.#read());
  }

  get order(): readonly string[] {
    return this.#choices.order;
  }

  set order(keys: readonly string[]) {
    this.#choices.order = limitNames(keys);
    this.#save();
  }

  get hidden(): readonly string[] {
    return this.#choices.hidden;
  }

  set hidden(keys: readonly string[]) {
    // The newest are the last.
    this.#choices.hidden = limitNames(keys.toReversed()).toReversed();
    this.#save();
  }

  get tileSize(): TileSize {
    return this.#choices.tileSize;
  }

  set tileSize(size: TileSize) {
    this.#choices.tileSize = size;
    this.#save();
  }

  get timeZone(): TimeZone {
    return this.#choices.timeZone;
  }

  set timeZone(zone: TimeZone) {
    this.#choices.timeZone = zone;
    this.#save();
  }

  /** Time of the newest problem that was cleared, in ns since 1970. */
  get clearedProblem(): bigint {
    return BigInt(this.#choices.clearedProblem);
  }

  set clearedProblem(time: bigint) {
    this.#choices.clearedProblem = `${time}`;
    this.#save();
  }

  /** Returns the palette chosen for a source. */
  palette(key: string): PaletteName | undefined {
    return this.#choices.palettes.find(([name]) => name === key)?.[1];
  }

  setPalette(key: string, palette: PaletteName): void {
    const others = this.#choices.palettes.filter(([name]) => name !== key);
    const kept = new Set(limitNames([key, ...others.map(([name]) => name)]));
    const palettes = [[key, palette] as const, ...others];
    this.#choices.palettes = palettes.filter(([name]) => kept.has(name));
    this.#save();
  }

  #read(): unknown {
    try {
      return JSON.parse(this.#storage.getItem(storageKey) ?? "null");
    } catch {
      // Some browsers throw here if they block storage, and other programs may have written there.
      return null;
    }
  }

  #save(): void {
    try {
      this.#storage.setItem(storageKey, JSON.stringify(this.#choices));
    } catch {
      // As above. The choice holds until the page is closed.
    }
  }
}

/** Returns the browser's storage, or none where the browser blocks it. */
export function browserStorage(): Pick<Storage, "getItem" | "setItem"> {
  try {
    return localStorage;
  } catch {
    return { getItem: () => null, setItem: () => {} };
  }
}

/** Keeps what has the right form. */
function parseChoices(stored: unknown): StoredChoices {
  const value = (typeof stored === "object" && stored !== null ? stored : {}) as Record<
    string,
    unknown
  >;
  const names = (list: unknown): string[] =>
    Array.isArray(list) ? limitNames(list.filter((name) => typeof name === "string")) : [];
  const palettes = Array.isArray(value["palettes"]) ? value["palettes"].filter(isPalette) : [];
  const { clearedProblem, tileSize, timeZone } = value;
  return {
    order: names(value["order"]),
    hidden: names(value["hidden"]),
    palettes: palettes.slice(0, maxNames),
    tileSize: tileSizes.find((size) => size === tileSize) ?? "fit",
    timeZone: timeZones.find((zone) => zone === timeZone) ?? "UTC",
    clearedProblem:
      typeof clearedProblem === "string" && /^\d{1,19}$/.test(clearedProblem)
        ? clearedProblem
        : "0",
  };
}

function isPalette(entry: unknown): entry is [string, PaletteName] {
  return Array.isArray(entry) && typeof entry[0] === "string" && isPaletteName(String(entry[1]));
}

/** Returns the first names that fit the limits, each once. */
function limitNames(names: readonly string[]): string[] {
  let length = 0;
  return [...new Set(names)]
    .slice(0, maxNames)
    .filter((name) => (length += name.length) <= maxLength);
}
