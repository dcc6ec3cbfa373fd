/** `export.mcap`: streams the frames of a stream as an MCAP file, in their order of arrival. */
import { crc32 } from "../../common/checksum.ts";
import { FramesError, usageError } from "../../errors.ts";
import { McapWriter } from "../../mcap/writer.ts";
import type { FrameRecord, FrameSelection } from "../../store/journal/journal-reader.ts";
import { binaryType } from "../../common/media-types.ts";
import { software } from "../../version.ts";
import { contentDisposition } from "../media-type.ts";
import { notFound } from "../responses.ts";
import type { BodySource } from "../stream-body.ts";
import type { StreamRequest } from "./request.ts";
import { idleTimeoutSeconds, streamResponse } from "./stream-response.ts";

/** Journal rows examined at a time, and rows returned of them. */
const idBatchSize = 5000;
const rowBatchSize = 200;

/** Size limit for a frame that is read whole, so that its checksum is verified before it is sent. */
const maxInMemoryBytes = 4 << 20;

/** Bytes that are sent together. */
const minPartBytes = 256 << 10;

/** Frames that could not be read and are named in the file. */
const maxListedMissing = 100;

/**
 * @throws {FramesError} `missing` if the stream or a source does not exist, `full` or `stopping` if
 * it cannot stream
 */
export async function handleExport(req: StreamRequest): Promise<Response> {
  const { context, stream } = req;
  const { searchParams } = req.url;
  const sources = searchParams.getAll("source");
  const selection: FrameSelection = {
    stream,
    sources: sources.length === 0 ? undefined : sources,
    since: parseNanoseconds(searchParams.get("from"), "from"),
    until: parseNanoseconds(searchParams.get("to"), "to"),
  };
  const isHidden = sources.some((source) => !req.principal.canRead(stream, source));
  if (isHidden || !(await req.run(() => context.reader.has(selection)))) {
    throw notFound(`There is no stream ${[stream, ...sources].join("/")}`);
  }
  const headers = {
    "Content-Type": binaryType,
    "Content-Disposition": contentDisposition(`${stream}.mcap`, binaryType),
  };
  const options = { kind: "export", headers, idleTimeout: idleTimeoutSeconds } as const;
  return streamResponse(req, options, () => new ExportBody(selection, req));
}

/** @throws {FramesError} `usage` if the text is no time */
function parseNanoseconds(text: string | null, name: string): bigint | undefined {
  if (text === null) return undefined;
  if (/^-?\d{1,19}$/.test(text)) return BigInt.asIntN(64, BigInt(text));
  throw usageError(
    `Cannot read ?${name}=: expected nanoseconds since 1970, current value is ${JSON.stringify(text.slice(0, 50))}`,
  );
}

class ExportBody implements BodySource {
  readonly mustBeComplete = true;
  readonly #selection: FrameSelection;
  readonly #req: StreamRequest;
  readonly #writer: McapWriter;
  readonly #parts = this.#write();
  /** Sources that have begun. With `from`, encoded video begins with the key frame before. */
  readonly #begunSources = new Set<string>();
  readonly #missing: Record<string, string> = {};
  #missingCount = 0;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #isClosed = false;

  constructor(selection: FrameSelection, req: StreamRequest) {
    this.#selection = selection;
    this.#req = req;
    const unexpected = () => {
      throw new FramesError("internal");
    };
    const output = {
      append: (bytes: Uint8Array) => {
        this.#pending.push(bytes.slice());
        this.#pendingBytes += bytes.length;
      },
      // The journal has every checksum, so nothing that was sent has to change.
      patch: unexpected,
      cut: unexpected,
    };
    this.#writer = new McapWriter(output, { library: software, stream: selection.stream });
  }

  async next(): Promise<Uint8Array | undefined> {
    while (this.#pendingBytes < minPartBytes) {
      const { done } = await this.#parts.next();
      if (done === true) break;
    }
    if (this.#pendingBytes === 0) return undefined;
    const part = this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    return part;
  }

  close(): void {
    this.#isClosed = true;
    void this.#parts.return(undefined).catch(() => {});
  }

  /** Writes the file. Yields after each step, so that no more is read than the client takes. */
  async *#write(): AsyncGenerator<undefined, undefined> {
    for await (const record of this.#records()) {
      if (record.size > maxInMemoryBytes) yield* this.#writeLarge(record);
      else await this.#writeSmall(record);
      yield;
    }
    if (this.#missingCount > 0) {
      const count = String(this.#missingCount);
      this.#writer.addMetadata("frames.missing", { count, ...this.#missing });
    }
    this.#writer.end();
    return undefined;
  }

  /** Returns the selected rows that were in the journal at the start, and what they need. */
  async *#records(): AsyncGenerator<FrameRecord, undefined> {
    const { principal, run, context } = this.#req;
    const { reader } = context;
    const selection = this.#selection;
    const last = reader.lastId();
    for (let position = 0; position < last;) {
      const upTo = Math.min(position + idBatchSize, last);
      const from = position;
      const rows = await run(() => reader.between(selection, from, upTo, rowBatchSize));
      for (const row of rows) {
        if (!principal.canRead(row.stream, row.source)) continue;
        if (selection.since !== undefined && row.isKey !== undefined)
          yield* await this.#leadIn(row);
        yield row;
      }
      if (this.#isClosed) return undefined;
      if (rows.length === rowBatchSize) position = rows.at(-1)!.id;
      // After deletions there may be millions of ids without a row.
      else position = Math.max(upTo, ((await run(() => reader.nextId(upTo))) ?? last + 1) - 1);
    }
    return undefined;
  }

  /** Returns the pictures before `from` that the first picture of a source needs. */
  async #leadIn(row: FrameRecord): Promise<readonly FrameRecord[]> {
    if (this.#begunSources.has(row.source)) return [];
    this.#begunSources.add(row.source);
    const group = await this.#req.run(() => this.#req.context.reader.decodableUpTo(row));
    const { since } = this.#selection;
    // With too many of them, a player has to wait for the next key frame.
    return group?.filter(({ id, captured }) => id < row.id && captured < since!) ?? [];
  }

  /** Returns the bytes of a stored frame; undefined if it is gone. */
  async #fetch(record: FrameRecord): Promise<Response | undefined> {
    const { contents } = this.#req.context;
    if (contents.fetch !== undefined) return await contents.fetch(record);
    const blob = contents.blob(record);
    return blob === undefined ? undefined : new Response(blob);
  }

  async #writeSmall(record: FrameRecord): Promise<void> {
    const found = await this.#fetch(record);
    const bytes = await found?.bytes().catch(async (error: unknown) => {
      // The file may have been removed meanwhile.
      if ((await this.#fetch(record)) !== undefined) throw error;
      return undefined;
    });
    if (bytes === undefined) return this.#recordMissing(record, "it was moved away or deleted");
    if (bytes.length !== record.size || crc32(bytes) !== record.crc32) {
      return this.#recordMissing(record, "its bytes changed after it was stored");
    }
    this.#writer.begin(record);
    this.#writer.write(bytes);
    this.#writer.finish(record.crc32);
  }

  /** Writes a frame while it is read. If it turns out to be damaged, the response breaks off. */
  async *#writeLarge(record: FrameRecord): AsyncGenerator<undefined, undefined> {
    const body = (await this.#fetch(record))?.body;
    if (body === undefined || body === null) {
      this.#recordMissing(record, "it was moved away or deleted");
      return undefined;
    }
    this.#writer.begin(record);
    let crc = 0;
    for await (const bytes of body) {
      crc = crc32(bytes, crc);
      this.#writer.write(bytes);
      yield;
    }
    this.#writer.finish(crc);
    return undefined;
  }

  #recordMissing({ source, name }: FrameRecord, reason: string): void {
    this.#missingCount++;
    if (this.#missingCount <= maxListedMissing) this.#missing[`${source}/${name}`] = reason;
  }
}
