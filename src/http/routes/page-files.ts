/**
 * Serves the page's own files: embedded in the executable, or built at the first request when run
 * from source.
 */
import page from "../page/index.html";

/** A file of the page. */
interface PageFile {
  readonly body: Blob;
  readonly type: string;
  readonly etag: string;
  /** Whether its name contains a hash of its content. */
  readonly isImmutable: boolean;
}

/** Content-Security-Policy of the page: only its own files and this server's responses. */
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

/** Returns the page's file at this URL path, such as `/`. Undefined if there is none. */
export async function handlePageFile(
  path: string,
  request: Request,
): Promise<Response | undefined> {
  const file = (await (files ??= loadFiles())).get(path);
  if (file === undefined) return undefined;
  const headers = {
    "Content-Type": file.type,
    "Content-Security-Policy": pagePolicy,
    "Cache-Control": file.isImmutable ? "public, max-age=31536000, immutable" : "no-cache",
    ETag: file.etag,
  };
  if (request.headers.get("If-None-Match") === file.etag) {
    return new Response(null, { status: 304, headers });
  }
  return new Response(file.body, { headers });
}

async function loadFiles(): Promise<ReadonlyMap<string, PageFile>> {
  const builtFiles = page.files === undefined ? await buildFiles() : embeddedFiles();
  const entries = await Promise.all(
    builtFiles.map(async ({ path, body, type }): Promise<[string, PageFile]> => {
      const etag = `"${Bun.hash(await body.bytes()).toString(16)}"`;
      const isPage = path.endsWith(".html");
      return [isPage ? "/" : `/${path}`, { body, type, etag, isImmutable: !isPage }];
    }),
  );
  return new Map(entries);
}

/** A file of the page's bundle. */
interface BuiltFile {
  readonly path: string;
  readonly body: Blob;
  readonly type: string;
}

function embeddedFiles(): BuiltFile[] {
  const builtFiles = (page.files ?? []).map(({ path, headers }) => ({
    path: fileName(path),
    body: Bun.file(path),
    type: headers["content-type"],
  }));
  if (builtFiles.some(({ path }) => path.endsWith(".html"))) return builtFiles;
  const index = { path: fileName(page.index), body: Bun.file(page.index) };
  return [...builtFiles, { ...index, type: "text/html;charset=utf-8" }];
}

async function buildFiles(): Promise<BuiltFile[]> {
  const { outputs } = await Bun.build({ entrypoints: [page.index], minify: true });
  return await Promise.all(
    outputs.map(async (output) => {
      const { path, type } = output;
      return { path: fileName(path), body: new Blob([await output.arrayBuffer()]), type };
    }),
  );
}

function fileName(path: string): string {
  return path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);
}
