/** The page's own files: inside the executable, or built at the first request where it runs from its source. */
import page from "./page/index.html";

/** One of them. */
interface PageFile {
  readonly body: Blob;
  readonly type: string;
  readonly etag: string;
  /** Whether its name changes with its content. */
  readonly isFixed: boolean;
}

/** What the page may do: what it is made of, and what this server answers. */
const pagePolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob: data:",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join("; ");

let files: Promise<ReadonlyMap<string, PageFile>> | undefined;

/** The file that the page has at this path of an address, such as `/`. */
export async function pageFile(path: string, request: Request): Promise<Response | undefined> {
  const file = (await (files ??= load())).get(path);
  if (file === undefined) return undefined;
  const headers = {
    "Content-Type": file.type,
    "Content-Security-Policy": pagePolicy,
    "Cache-Control": file.isFixed ? "public, max-age=31536000, immutable" : "no-cache",
    ETag: file.etag,
  };
  if (request.headers.get("If-None-Match") === file.etag) {
    return new Response(null, { status: 304, headers });
  }
  return new Response(file.body, { headers });
}

async function load(): Promise<ReadonlyMap<string, PageFile>> {
  const found = page.files === undefined ? await build() : compiled();
  const entries = await Promise.all(
    found.map(async ({ path, body, type }): Promise<[string, PageFile]> => {
      const etag = `"${Bun.hash(await body.bytes()).toString(16)}"`;
      const isPage = path.endsWith(".html");
      return [isPage ? "/" : `/${path}`, { body, type, etag, isFixed: !isPage }];
    }),
  );
  return new Map(entries);
}

/** Name, content and type of a file as it was built. */
interface Built {
  readonly path: string;
  readonly body: Blob;
  readonly type: string;
}

function compiled(): Built[] {
  const found = (page.files ?? []).map(({ path, headers }) => ({
    path: nameOf(path),
    body: Bun.file(path),
    type: headers["content-type"],
  }));
  if (found.some(({ path }) => path.endsWith(".html"))) return found;
  const index = { path: nameOf(page.index), body: Bun.file(page.index) };
  return [...found, { ...index, type: "text/html;charset=utf-8" }];
}

async function build(): Promise<Built[]> {
  const { outputs } = await Bun.build({ entrypoints: [page.index], minify: true });
  return await Promise.all(
    outputs.map(async (output) => {
      const { path, type } = output;
      return { path: nameOf(path), body: new Blob([await output.arrayBuffer()]), type };
    }),
  );
}

function nameOf(path: string): string {
  return path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);
}
