// Frames over HTTP: the newest, and stored ones.

import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { Camera, jpeg, startViewed } from "../../helper/viewing.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

describe("the newest frame", () => {
  test("latest is the frame that was stored last, unchanged, with its headers", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    await camera.store(await jpeg(10));
    const second = await jpeg(200);
    await camera.store(second, "zwei ✓.jpg", 1_600_000_000_123_456_789n);
    const answer = await viewed.get("/streams/site/sources/gate/latest");
    expect(answer.status).toBe(200);
    expect(Buffer.from(await answer.bytes()).equals(second)).toBe(true);
    const { headers } = answer;
    expect(headers.get("X-Sequence")).toBe("2");
    expect(headers.get("X-Timestamp")).toBe("1600000000.123456789");
    expect(headers.get("Content-Type")).toBe("image/jpeg");
    expect(headers.get("Content-Disposition")).toBe(
      "inline; filename*=UTF-8''zwei%20%E2%9C%93.jpg",
    );
    const sum = crc32(second).toString(16).padStart(8, "0");
    expect(headers.get("ETag")).toBe(`"${sum}-${second.length}"`);
    await camera.end();
  });

  test("latest is the frame before, or 404, if the newest was moved away", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "site", "gate");
    const first = await jpeg(10);
    await camera.store(first);
    const address = "/streams/site/sources/gate/latest";
    expect((await (await viewed.get(address)).bytes()).length).toBe(first.length);
    await camera.store(await jpeg(99));
    const folder = join(viewed.server.directory, "site/gate");
    rmSync(join(folder, "2.jpg"));
    const held = await viewed.get(address);
    expect(held.headers.get("X-Sequence")).toBe("1");
    expect(Buffer.from(await held.bytes()).equals(first)).toBe(true);
    const other = new Camera(viewed.server, "site", "door");
    await other.store(await jpeg(10));
    rmSync(join(viewed.server.directory, "site/door/1.jpg"));
    const gone = await viewed.get("/streams/site/sources/door/latest");
    expect(gone.status).toBe(404);
    expect(((await gone.json()) as { message: string }).message).toMatch(/moved away/);
    await Promise.all([camera.end(), other.end()]);
  });

  test("latest is known after a restart, also for a large frame", async () => {
    const directory: string[] = [];
    const large = crypto.getRandomValues(new Uint8Array(65_536));
    const frame = Buffer.concat(Array.from({ length: 48 }, () => large));
    {
      await using viewed = await startViewed();
      directory.push(viewed.server.directory);
      const camera = new Camera(viewed.server, "site", "gate");
      await camera.store(frame, "1.bin");
      const live = await viewed.get("/streams/site/sources/gate/latest");
      expect(live.headers.get("Content-Length")).toBe(String(frame.length));
      expect(live.headers.get("Content-Disposition")).toMatch(/^attachment/);
      expect(Buffer.from(await live.bytes()).equals(frame)).toBe(true);
      await camera.end();
    }
    const { serve } = await import("frames");
    const server = await serve(directory[0]!, {
      listen: "127.0.0.1:0",
      http: "127.0.0.1:0",
      reserve: 0,
    });
    const answer = await fetch(`http://${server.http}/streams/site/sources/gate/latest`);
    expect(Buffer.from(await answer.bytes()).equals(frame)).toBe(true);
    await server.stop();
  });

  test("latest of an unknown source is 404", async () => {
    await using viewed = await startViewed();
    for (const path of ["/streams/a/sources/b/latest", "/streams/a/sources/b/latest.mjpeg"]) {
      const answer = await viewed.get(path);
      expect(answer.status).toBe(404);
      expect(((await answer.json()) as { error: string }).error).toBe("missing");
    }
  });
});

describe("stored frames", () => {
  test("a stored frame is found by name and number, in sources of several parts", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run 7", "a/frames/b%2F");
    await camera.store(bytes("first"), "a?b#c.txt");
    await camera.store(bytes("second"), "latest");
    const base = "/streams/run%207/sources/a/frames/b%252F";
    expect(await (await viewed.get(`${base}/frames/a%3Fb%23c.txt`)).text()).toBe("first");
    expect(await (await viewed.get(`${base}/frames/latest`)).text()).toBe("second");
    expect(await (await viewed.get(`${base}/latest`)).text()).toBe("second");
    expect(await (await viewed.get(`${base}/numbers/1`)).text()).toBe("first");
    expect((await viewed.get(`${base}/numbers/3`)).status).toBe(404);
    expect((await viewed.get(`${base}/numbers/x`)).status).toBe(400);
    expect((await viewed.get(`${base}/numbers/1?session=none`)).status).toBe(404);
    const { frames } = await viewed.json(
      `/api/streams/run%207/frames?source=${encodeURIComponent("a/frames/b%2F")}`,
    );
    for (const [index, { url }] of frames.entries()) {
      expect(await (await viewed.get(url)).text()).toBe(["first", "second"][index]!);
    }
    await camera.end();
  });

  test("a stored frame is served in ranges, and not again to a client that has it", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "x");
    const small = Buffer.from("0123456789");
    const large = Buffer.alloc(3_000_000);
    for (let at = 0; at < large.length; at++) large[at] = (at * 7) % 251;
    await camera.store(small, "small.bin");
    await camera.store(large, "large.bin");
    for (const [name, content] of [
      ["small.bin", small],
      ["large.bin", large],
    ] as const) {
      const path = `/streams/run7/sources/x/frames/${name}`;
      const size = content.length;
      const part = async (range: string) => {
        const answer = await viewed.get(path, { headers: { Range: range } });
        const found = Buffer.from(await answer.bytes());
        return [answer.status, answer.headers.get("Content-Range"), found] as const;
      };
      expect(await part("bytes=0-3")).toEqual([206, `bytes 0-3/${size}`, content.subarray(0, 4)]);
      const behind = [206, `bytes 5-${size - 1}/${size}`, content.subarray(5)] as const;
      const tail = await part("bytes=5-");
      expect(tail[0]).toBe(206);
      expect(tail[1]).toBe(behind[1]);
      expect(tail[2].equals(behind[2])).toBe(true);
      expect(await part("bytes=-2")).toEqual([
        206,
        `bytes ${size - 2}-${size - 1}/${size}`,
        content.subarray(size - 2),
      ]);
      expect((await part(`bytes=${size}-`))[0]).toBe(416);
      expect((await part("bytes=0-1,4-5"))[0]).toBe(200);
      const whole = await viewed.get(path);
      expect(Buffer.from(await whole.bytes()).equals(content)).toBe(true);
      const etag = whole.headers.get("ETag")!;
      const again = await viewed.get(path, { headers: { "If-None-Match": `"x", ${etag}` } });
      expect(again.status).toBe(304);
      const stale = await viewed.get(path, { headers: { Range: "bytes=0-3", "If-Range": '"x"' } });
      expect(stale.status).toBe(200);
      await stale.body?.cancel();
      const head = await viewed.get(path, { method: "HEAD" });
      expect(head.headers.get("Content-Length")).toBe(String(size));
      expect(head.headers.get("Cache-Control")).toBe("private, no-cache");
    }
    await camera.end();
  });

  test("a stored frame that became a link or was changed is not served", async () => {
    await using viewed = await startViewed();
    const { directory } = viewed.server;
    const secret = join(directory, "../secret");
    const content = bytes("the frame!");
    writeFileSync(secret, "the secret");
    const camera = new Camera(viewed.server, "run7", "x/y");
    for (const name of ["link.jpg", "changed.jpg", "longer.jpg"]) await camera.store(content, name);
    const folder = join(directory, "run7/x/y");
    rmSync(join(folder, "link.jpg"));
    symlinkSync(secret, join(folder, "link.jpg"));
    writeFileSync(join(folder, "changed.jpg"), "other text");
    writeFileSync(join(folder, "longer.jpg"), "other text, and more");
    const statusOf = async (name: string) => {
      const answer = await viewed.get(`/streams/run7/sources/x/y/frames/${name}`);
      expect(await answer.text()).not.toMatch(/secret|other text/);
      return answer.status;
    };
    expect(await statusOf("link.jpg")).toBe(404);
    expect(await statusOf("changed.jpg")).toBe(410);
    expect(await statusOf("longer.jpg")).toBe(404);
    // The path contains a linked folder that has such a file.
    const elsewhere = join(directory, "../elsewhere");
    mkdirSync(elsewhere);
    renameSync(join(directory, "run7/x/y"), join(elsewhere, "y"));
    writeFileSync(join(elsewhere, "y/changed.jpg"), content);
    symlinkSync(join(elsewhere, "y"), join(directory, "run7/x/y"));
    expect(await statusOf("changed.jpg")).toBe(404);
    await camera.end();
  });

  test("a large stored frame that was changed is not served", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "x");
    const content = new Uint8Array(3_000_000).fill(7);
    await camera.store(content, "1.bin");
    content[100] = 8;
    writeFileSync(join(viewed.server.directory, "run7/x/1.bin"), content);
    expect((await viewed.get("/streams/run7/sources/x/frames/1.bin")).status).toBe(410);
    await camera.end();
  });

  test("a stored frame that a browser could execute is served as an attachment", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "x");
    const evil = bytes("<html><script>alert(1)</script>");
    const names = ["1.svg", "1.html", "1.xml", "1", "1.jpg.exe", "1.jpg"];
    for (const name of names) await camera.store(evil, name);
    for (const name of names) {
      const { headers } = await viewed.get(`/streams/run7/sources/x/frames/${name}`);
      const isPicture = name.endsWith(".jpg");
      expect(headers.get("Content-Type")).toBe(
        isPicture ? "image/jpeg" : "application/octet-stream",
      );
      const expected = isPicture ? /^inline/ : /^attachment/;
      expect(headers.get("Content-Disposition")).toMatch(expected);
      expect(headers.get("X-Content-Type-Options")).toBe("nosniff");
      expect(headers.get("Content-Security-Policy")).toMatch(/default-src 'none'; sandbox/);
      expect(headers.get("Cross-Origin-Resource-Policy")).toBe("same-origin");
    }
    await camera.end();
  });

  test("a path that leads out of the store finds no frame", async () => {
    await using viewed = await startViewed();
    const camera = new Camera(viewed.server, "run7", "x");
    await camera.store(bytes("frame"), "1.txt");
    writeFileSync(join(viewed.server.directory, "../secret.txt"), "secret");
    for (const path of [
      "/streams/run7/sources/x/frames/..%2f..%2f..%2fsecret.txt",
      "/streams/run7/sources/x/frames/%2e%2e/%2e%2e/%2e%2e/secret.txt",
      "/streams/..%2f/sources/x/frames/secret.txt",
      "/streams/run7/sources/../../../frames/secret.txt",
      "/streams/run7/sources/x/frames/%00",
      "/streams/run7/sources/x/frames/%ff",
      "/streams/run7/sources/x/frames/1.txt%2f",
      "/streams/.frames/sources/.frames/frames/journal.sqlite",
      "/streams//sources//frames/1.txt",
    ]) {
      const answer = await viewed.get(path);
      expect([path, answer.status === 404 || answer.status === 400]).toEqual([path, true]);
      expect(await answer.text()).not.toMatch(/secret$|SQLite/);
    }
    expect(readdirSync(join(viewed.server.directory, "run7/x"))).toEqual(["1.txt"]);
    await camera.end();
  });
});
