// What is hidden and escaped in text that is shown, and what stays readable.

import { expect, test } from "bun:test";
import { FramesError } from "../src/errors.ts";
import { containsSecret, printable, redact, safeJson } from "../src/safe-text.ts";

const secret = "S3cretW0rd";

/** Forms in which a URL or a sentence may hold a secret. */
export const secretForms: readonly string[] = [
  `rtsp://admin:${secret}@camera:554/1`,
  `rtsp://admin:Pa@${secret}@camera/1`,
  `rtsp://admin:Pa%40${secret}@camera/1`,
  `rtsp://admin:pa/${secret}@camera/1`,
  `rtsp://admin:p@a/${secret}@camera/1`,
  `rtsp://admin:pa#${secret}@camera/1`,
  `rtsp://admin:pa?${secret}@camera/1`,
  `RTSPS://${secret}@camera/1`,
  `onvif://admin:${secret}@[fe80::1]:80/device`,
  `mqtt://user:${secret}@broker/topic`,
  `s3://AKIAIOSFODNN7EXAMPLE:a/b+${secret}@bucket/prefix`,
  `http://camera/video?token=${secret}`,
  `http://camera/video?${secret}`,
  `http://camera/video#access_token=${secret}`,
  `http://camera/cgi?user=admin&auth=${secret}&key=${secret}`,
  `rtsp://camera/user=admin&password=${secret}&channel=1`,
  `rtsp://camera/user=admin_password=${secret}_channel=1`,
  `srt://camera:9000?mode=caller&passphrase=${secret}`,
  `rist://camera:9000?secret=${secret}`,
  `https://bucket.s3.amazonaws.com/x?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE&X-Amz-Signature=${secret}`,
  `http://relay/rtsp://admin:${secret}@camera/1`,
  `http://relay/rtsp%3A%2F%2Fadmin%3A${secret}%40camera/1`,
  `admin:${secret}@camera:9726`,
  `admin:Pa@${secret}@10.0.0.7`,
  `/home/you/admin:${secret}@camera`,
  `/home/you/rtsp:/admin:Pa@${secret}@camera/1`,
  `/streams/s/sources/a/latest.mjpeg?token=${secret}`,
  `rtsp://admin:my ${secret}@camera/1`,
  `rtsp://admin:p@ss ${secret}@camera/1`,
  `rtsp://admin:${secret}%40camera/1`,
  `rtsp://admin:${secret}`,
  `//admin:${secret}@camera/1`,
  `a://admin:${secret}@camera/1`,
  `api_key=${secret}`,
  `pass=${secret}`,
  `secretkey=${secret}`,
  `password=a,b;${secret}`,
  `password='${secret}'`,
  `password: ${secret}`,
  `{"user":"admin","password":"${secret}"}`,
  `Cookie: session=${secret}`,
  `Authorization: Digest username="admin", response="${secret}"`,
  `Authorization: Bearer ${secret}`,
  `Authorization: Basic ${secret}==`,
  `frames_key_${secret}`,
  `frames_token_${secret}${secret}`,
];

for (const form of secretForms) {
  test(`a secret is hidden in ${form}`, () => {
    const sentences = [
      form,
      `Cannot read ${form}: connection refused; run frames help cameras`,
      `current value is ${JSON.stringify(form)}`,
      `('${form}')`,
      `first rtsp://other/1, then ${form}.`,
    ];
    for (const sentence of sentences) {
      expect(redact(sentence)).not.toContain(secret);
      expect(new FramesError("usage", sentence).message).not.toContain(secret);
      expect(containsSecret(sentence)).toBe(true);
      // What is hidden already stays as it is.
      expect(redact(redact(sentence))).toBe(redact(sentence));
    }
  });
}

test("the host of a camera, and text without secrets, stay readable", () => {
  expect(redact(`Cannot read rtsp://admin:${secret}@camera:554/1: it ended`)).toBe(
    "Cannot read rtsp://…@camera:554/1: it ended",
  );
  for (const text of [
    "Cannot read rtsp://camera:554/live@hd: no answer",
    "Cannot reach http://camera: connection refused; ask you@example.org",
    "expected http://HOST:PORT",
    "The password must not be empty",
    "See it at http://127.0.0.1:9727/",
    "expected WIDTHxHEIGHT:FORMAT@RATE or a part of it, such as 640x512:gray16le@30",
    "gate=640x512:gray16le@29.97",
    "127.0.0.1:53210 delivered run7: 3 stored",
    "Cannot read /srv/a=b/x@y.jpg: no such file or directory",
    "npx --yes bun@1.4.5 run demo",
    "The key is not in the server's key file",
    "Cannot read --since: expected a time such as 2026-11-30T10:20:30Z",
  ]) {
    expect(redact(text)).toBe(text);
  }
});

test("the secrets of the environment are hidden wherever they occur", () => {
  const before = process.env["AWS_SECRET_ACCESS_KEY"];
  process.env["AWS_SECRET_ACCESS_KEY"] = `${secret}+/x`;
  try {
    expect(redact(`the engine answered ${secret}+/x`)).toBe("the engine answered …");
  } finally {
    if (before === undefined) delete process.env["AWS_SECRET_ACCESS_KEY"];
    else process.env["AWS_SECRET_ACCESS_KEY"] = before;
  }
});

test("text is escaped so that it controls no terminal and begins no line", () => {
  const hostile = 'a\r\nb\x1b[31m\0\u202ec\u2066\u2028\x85"';
  expect(printable(hostile)).toBe(String.raw`a\x0d\x0ab\x1b[31m\x00\u202ec\u2066\u2028\x85"`);
  const json = safeJson({ name: hostile, size: 2n ** 60n });
  expect(printable(json)).toBe(json);
  expect(JSON.parse(json)).toEqual({ name: hostile, size: String(2n ** 60n) });
});
