/** Which address is answered by whom. */
import { missing } from "./answers.ts";
import type { Asked, Exhibition } from "./exhibition.ts";

export async function answerTo(asked: Asked, _: Exhibition): Promise<Response | undefined> {
  if (asked.url.pathname === "/healthz") return new Response("ok\n");
  throw missing(`There is nothing at ${asked.url.pathname}`);
}
