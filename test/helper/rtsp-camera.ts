// A network camera that speaks RTSP over TCP, asks for a password, and sends an MPEG transport stream.

/** A running camera. */
export interface RtspCamera {
  readonly port: number;
  /** Credentials of the requests so far, decoded. */
  readonly credentials: readonly string[];
  stop(): void;
}

const packetBytes = 7 * 188;

/** Starts a camera that sends `stream` again and again, at the pace of a viewer's `PLAY`. */
export function startRtspCamera(stream: Uint8Array, credentials: string): RtspCamera {
  const seen: string[] = [];
  const expected = `Basic ${Buffer.from(credentials).toString("base64")}`;
  const timers = new Set<NodeJS.Timeout>();
  const server = Bun.listen<{ text: string }>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: (socket) => void (socket.data = { text: "" }),
      data(socket, chunk) {
        socket.data.text += chunk.toString("latin1");
        for (let end = 0; (end = socket.data.text.indexOf("\r\n\r\n")) >= 0;) {
          const head = socket.data.text.slice(0, end);
          socket.data.text = socket.data.text.slice(end + 4);
          const method = /^\S*?([A-Z_]+) /.exec(head)?.[1];
          const [, number = "0"] = /^CSeq: *(\d+)/im.exec(head) ?? [];
          const authorization = /^Authorization: *(.*)$/im.exec(head)?.[1];
          const answer = (status: string, headers = "", body = "") =>
            void socket.write(`RTSP/1.0 ${status}\r\nCSeq: ${number}\r\n${headers}\r\n${body}`);
          if (authorization !== undefined) {
            const [, encoded = ""] = authorization.split(" ");
            seen.push(Buffer.from(encoded, "base64").toString());
          }
          if (method !== "OPTIONS" && authorization !== expected) {
            answer("401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n');
            continue;
          }
          const session = "Session: 1\r\n";
          if (method === "DESCRIBE") {
            const sdp =
              "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n";
            answer(
              "200 OK",
              `Content-Type: application/sdp\r\nContent-Length: ${sdp.length}\r\n`,
              sdp,
            );
          } else if (method === "SETUP") {
            answer("200 OK", `${session}Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n`);
          } else {
            answer("200 OK", `${session}Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n`);
            if (method === "PLAY") timers.add(play(stream, (packet) => socket.write(packet)));
          }
        }
      },
    },
  });
  return {
    port: server.port,
    credentials: seen,
    stop() {
      for (const timer of timers) clearInterval(timer);
      server.stop(true);
    },
  };
}

/** Writes the stream as RTP packets (RFC 2250), interleaved in the connection (RFC 2326, 10.12). */
function play(stream: Uint8Array, write: (packet: Uint8Array) => number): NodeJS.Timeout {
  let [at, number] = [0, 0];
  return setInterval(() => {
    for (let count = 0; count < 10; count++) {
      const payload = stream.subarray(at, at + packetBytes);
      at = at + packetBytes >= stream.length ? 0 : at + packetBytes;
      const packet = Buffer.alloc(16 + payload.length);
      packet.set([0x24, 0]);
      packet.writeUInt16BE(12 + payload.length, 2);
      packet.set([0x80, 33], 4);
      packet.writeUInt16BE(number++ & 0xffff, 6);
      packet.writeUInt32BE(((Date.now() * 90) % 2 ** 32) >>> 0, 8);
      packet.set(payload, 16);
      if (write(packet) < packet.length) return;
    }
  }, 20);
}
