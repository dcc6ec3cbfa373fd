// A small S3 engine in memory that checks which keys and session tokens a request has. It does not
// check signatures.

/** Key and session token of a request, from its query or its headers. */
export interface SignedWith {
  readonly accessKeyId: string;
  readonly sessionToken: string | null;
}

export interface MemoryS3 extends Disposable {
  readonly endpoint: string;
  readonly objects: ReadonlyMap<string, Uint8Array>;
  /** Keys of the requests so far, without repetitions. */
  readonly signedWith: readonly SignedWith[];
  /** Returns an S3 error code for a request with these keys, or undefined to accept it. */
  check: (keys: SignedWith) => string | undefined;
}

export function startMemoryS3(check: MemoryS3["check"] = () => undefined): MemoryS3 {
  const objects = new Map<string, Uint8Array>();
  const signedWith: SignedWith[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    maxRequestBodySize: 1 << 30,
    async fetch(request) {
      const url = new URL(request.url);
      const body = await request.bytes();
      const keys = keysOf(request, url);
      if (!signedWith.some((seen) => Bun.deepEquals(seen, keys))) signedWith.push(keys);
      const code = engine.check(keys);
      if (code !== undefined) {
        const text = `<Error><Code>${code}</Code><Message>${keys.accessKeyId}</Message></Error>`;
        return new Response(text, { status: code === "ExpiredToken" ? 400 : 403 });
      }
      if (url.searchParams.get("list-type") === "2") {
        return list(objects, url.searchParams.get("prefix") ?? "");
      }
      return answerObject(objects, decodeURIComponent(url.pathname), request, body);
    },
  });
  const engine: MemoryS3 = {
    endpoint: `http://127.0.0.1:${server.port}`,
    objects,
    signedWith,
    check,
    [Symbol.dispose]: () => void server.stop(true),
  };
  return engine;
}

function keysOf(request: Request, { searchParams }: URL): SignedWith {
  const { headers } = request;
  const credential =
    searchParams.get("X-Amz-Credential") ??
    /Credential=([^,]+)/.exec(headers.get("authorization") ?? "")?.[1] ??
    "";
  return {
    accessKeyId: credential.split("/")[0]!,
    sessionToken: searchParams.get("X-Amz-Security-Token") ?? headers.get("x-amz-security-token"),
  };
}

function etagOf(bytes: Uint8Array): string {
  return `"${Bun.hash(bytes).toString(16)}"`;
}

function answerObject(
  objects: Map<string, Uint8Array>,
  path: string,
  { method, headers }: Request,
  body: Uint8Array,
): Response {
  const stored = objects.get(path);
  const etag = stored === undefined ? undefined : etagOf(stored);
  if (method === "PUT") {
    const isTaken = headers.get("if-none-match") === "*" && stored !== undefined;
    const wanted = headers.get("if-match");
    if (isTaken || (wanted !== null && wanted !== etag)) return new Response("", { status: 412 });
    objects.set(path, body);
    return new Response("", { headers: { ETag: etagOf(body) } });
  }
  if (method === "DELETE") {
    objects.delete(path);
    return new Response(null, { status: 204 });
  }
  if (stored === undefined || etag === undefined) {
    return new Response("<Error><Code>NoSuchKey</Code></Error>", { status: 404 });
  }
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.get("range") ?? "") ?? [];
  if (first === undefined) return new Response(stored.slice(), { headers: { ETag: etag } });
  const part = stored.slice(Number(first), last === "" ? undefined : Number(last) + 1);
  return new Response(part, { status: 206, headers: { ETag: etag } });
}

function list(objects: ReadonlyMap<string, Uint8Array>, prefix: string): Response {
  const found = [...objects].map(([path, bytes]) => ({
    key: path.split("/").slice(2).join("/"),
    bytes,
  }));
  const contents = found
    .filter(({ key }) => key.startsWith(prefix))
    .toSorted((a, b) => (a.key < b.key ? -1 : 1))
    .map(({ key, bytes }) => {
      const etag = etagOf(bytes).replaceAll('"', "&quot;");
      return `<Contents><Key>${key}</Key><Size>${bytes.length}</Size><ETag>${etag}</ETag></Contents>`;
    });
  const text = `<ListBucketResult><IsTruncated>false</IsTruncated>${contents.join("")}</ListBucketResult>`;
  return new Response(text, { headers: { "Content-Type": "application/xml" } });
}
