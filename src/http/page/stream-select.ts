/** Selects another stream to see at the same moment. */
/// <reference lib="dom" />
import type { ApiClient, StreamJson } from "./api.ts";
import { element } from "./dom.ts";
import { compareNames } from "./natural-order.ts";

/** Streams that are listed. */
const maxStreams = 100;

export class StreamSelect {
  readonly element = element("select", {
    "aria-label": "Other stream at this moment",
    hidden: true,
  });
  readonly #api: ApiClient;

  /** @param onSelect called with the stream that the user selects */
  constructor(api: ApiClient, onSelect: (stream: string) => void) {
    this.#api = api;
    this.element.addEventListener("change", () => onSelect(this.element.value));
  }

  /** Lists the streams other than `stream`, which is shown. */
  async show(stream: string): Promise<void> {
    try {
      const path = `/api/streams?limit=${maxStreams}`;
      const { streams } = await this.#api.get<{ streams: StreamJson[] }>(path);
      const names = streams.map(({ name }) => name).filter((name) => name !== stream);
      this.element.replaceChildren(
        element("option", { value: "", text: "Same time in…", disabled: true, selected: true }),
        ...names
          .toSorted(compareNames)
          .map((name) => element("option", { value: name, text: name })),
      );
      this.element.hidden = names.length === 0;
    } catch {
      // The view is usable without the other streams.
    }
  }
}
