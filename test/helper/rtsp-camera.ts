// A network camera that speaks RTSP, may ask for a password, and sends an MPEG transport stream, or
// pictures of H.264 or H.265.

import { nalUnits, type VideoCodec } from "../../src/video/nal-units.ts";

/** A running camera. */
export interface RtspCamera {
  readonly port: number;
  /** Credentials of the requests so far, decoded. */
  readonly credentials: readonly string[];
  stop(): void;
}

/** Encoded video that a camera sends. */
export interface RtspVideo {
  readonly codec: VideoCodec;
  /** Access units sent to a viewer, the `play`-th from 0. The connection ends after the last one. */
  units(play: number): readonly Uint8Array[];
  /** Time of an access unit, in units of 1/90,000 s. Default: 30 pictures a second. */
  readonly timeOf?: (index: number) => number;
  /** Milliseconds between access units. Default: 4. */
  readonly intervalMs?: number;
  /** Whether a packet is lost on its way. If given, packets go by UDP. */
  readonly isLost?: (packet: number) => boolean;
  /** Parameters of the format in the description of the session, as in RFC 6184 section 8.1. */
  readonly parameters?: string;
}

/** The connection of a viewer. */
interface Viewer {
  /** Requests that are incomplete. */
  text: string;
  /** Bytes that the socket did not take. */
  waiting: Buffer;
  /** Ports of the viewer and socket for packets, if they go by UDP. */
  udp?: { readonly port: number; readonly socket: Bun.udp.Socket<"buffer"> };
  timer?: NodeJS.Timeout;
}

const transportPacketBytes = 7 * 188;

/** Starts a camera that sends `stream` again and again, or encoded video, to each viewer. */
export function startRtspCamera(
  stream: Uint8Array | RtspVideo,
  credentials?: string,
  port = 0,
): RtspCamera {
  const seen: string[] = [];
  const expected =
    credentials === undefined ? undefined : `Basic ${Buffer.from(credentials).toString("base64")}`;
  const video = stream instanceof Uint8Array ? undefined : stream;
  const timers = new Set<NodeJS.Timeout>();
  let plays = 0;
  const play = (socket: Bun.Socket<Viewer>): void => {
    const groups =
      stream instanceof Uint8Array
        ? transportPackets(stream)
        : videoPackets(stream, stream.units(plays++));
    const viewer = socket.data;
    const sendNext = (): void => {
      // What the socket did not take goes first.
      if (viewer.waiting.length === 0) {
        const { done, value } = groups.next();
        if (done === true) return void socket.end();
        if (viewer.udp !== undefined) {
          const { socket: sender, port: target } = viewer.udp;
          try {
            for (const packet of value) sender.send(packet, target, "127.0.0.1");
          } catch {
            // The viewer has closed its port.
          }
          return;
        }
        viewer.waiting = Buffer.concat(value.map(interleaved));
      }
      const count = socket.write(viewer.waiting);
      viewer.waiting = viewer.waiting.subarray(Math.max(0, count));
    };
    viewer.timer = setInterval(sendNext, video === undefined ? 20 : (video.intervalMs ?? 4));
    timers.add(viewer.timer);
  };
  const setUp = async (viewer: Viewer, head: string): Promise<string | undefined> => {
    if (video?.isLost === undefined) return "RTP/AVP/TCP;unicast;interleaved=0-1";
    const [, target] = /client_port=(\d+)/.exec(head) ?? [];
    if (target === undefined) return undefined;
    const socket = await Bun.udpSocket({
      hostname: "127.0.0.1",
      // Packets to a closed port come back as an error.
      socket: { error: () => {} },
    });
    viewer.udp = { port: Number(target), socket };
    const ports = `client_port=${target}-${Number(target) + 1}`;
    return `RTP/AVP;unicast;${ports};server_port=${socket.port}-${socket.port + 1}`;
  };
  const respond = async (socket: Bun.Socket<Viewer>, head: string): Promise<void> => {
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
      return answer("401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n');
    }
    const session = "Session: 1\r\n";
    if (method === "DESCRIBE") {
      const sdp = `v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n${describe(video)}`;
      const headers = `Content-Type: application/sdp\r\nContent-Length: ${sdp.length}\r\n`;
      return answer("200 OK", headers, sdp);
    }
    if (method === "SETUP") {
      const transport = await setUp(socket.data, head);
      if (transport === undefined) return answer("461 Unsupported Transport");
      return answer("200 OK", `${session}Transport: ${transport}\r\n`);
    }
    answer("200 OK", `${session}Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n`);
    if (method === "PLAY") play(socket);
  };
  const server = Bun.listen<Viewer>({
    hostname: "127.0.0.1",
    port,
    socket: {
      open: (socket) => void (socket.data = { text: "", waiting: Buffer.alloc(0) }),
      close({ data: { timer, udp } }) {
        clearInterval(timer);
        udp?.socket.close();
      },
      async data(socket, chunk) {
        const viewer = socket.data;
        viewer.text += chunk.toString("latin1");
        for (let end = 0; (end = viewer.text.indexOf("\r\n\r\n")) >= 0;) {
          const head = viewer.text.slice(0, end);
          viewer.text = viewer.text.slice(end + 4);
          await respond(socket, head);
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

function describe(video: RtspVideo | undefined): string {
  if (video === undefined) return "m=video 0 RTP/AVP 33\r\n";
  const { codec, parameters = "packetization-mode=1" } = video;
  const map = `a=rtpmap:96 ${codec === "h264" ? "H264" : "H265"}/90000\r\n`;
  return `m=video 0 RTP/AVP 96\r\n${map}a=fmtp:96 ${parameters}\r\n`;
}

/** Yields ten RTP packets at a time (RFC 2250), without end. */
function* transportPackets(stream: Uint8Array): Generator<Buffer[], undefined> {
  for (let [at, number] = [0, 0]; ;) {
    const packets: Buffer[] = [];
    for (let count = 0; count < 10; count++) {
      const payload = stream.subarray(at, at + transportPacketBytes);
      at = at + transportPacketBytes >= stream.length ? 0 : at + transportPacketBytes;
      packets.push(rtp(33, number++, Date.now() * 90, payload));
    }
    yield packets;
  }
}

/** Yields the RTP packets of one access unit at a time (RFC 6184 and RFC 7798). */
function* videoPackets(
  { codec, timeOf = (index) => index * 3000, isLost = () => false }: RtspVideo,
  units: readonly Uint8Array[],
): Generator<Buffer[], undefined> {
  let number = 0;
  for (const [index, unit] of units.entries()) {
    const payloads = [...nalUnits(unit, codec)].flatMap(({ header, end }) => [
      ...fragments(Buffer.from(unit.subarray(header, end)), codec),
    ]);
    const first = number;
    number += payloads.length;
    // The last packet of a picture is marked.
    const packets = payloads.map((payload, at) =>
      rtp(at === payloads.length - 1 ? 96 | 0x80 : 96, first + at, timeOf(index), payload),
    );
    yield packets.filter((_, at) => !isLost(first + at));
  }
  return undefined;
}

const maxPayloadBytes = 1200;

/** Cuts a NAL unit into the payloads of packets. */
function* fragments(unit: Buffer, codec: VideoCodec): Generator<Buffer, undefined> {
  if (unit.length <= maxPayloadBytes) {
    yield unit;
    return undefined;
  }
  const headBytes = codec === "h264" ? 1 : 2;
  for (let at = headBytes; at < unit.length; at += maxPayloadBytes) {
    const isEnd = at + maxPayloadBytes >= unit.length;
    const edges = (at === headBytes ? 0x80 : 0) | (isEnd ? 0x40 : 0);
    const head =
      codec === "h264"
        ? [(unit[0]! & 0xe0) | 28, edges | (unit[0]! & 0x1f)]
        : [(unit[0]! & 0x81) | (49 << 1), unit[1]!, edges | ((unit[0]! >> 1) & 0x3f)];
    yield Buffer.concat([Buffer.from(head), unit.subarray(at, at + maxPayloadBytes)]);
  }
  return undefined;
}

/** @param time in units of 1/90,000 s */
function rtp(type: number, number: number, time: number, payload: Uint8Array): Buffer {
  const packet = Buffer.alloc(12 + payload.length);
  packet.set([0x80, type]);
  packet.writeUInt16BE(number & 0xffff, 2);
  packet.writeUInt32BE((time % 2 ** 32) >>> 0, 4);
  packet.set(payload, 12);
  return packet;
}

/** Puts an RTP packet into the connection (RFC 2326, 10.12). */
function interleaved(packet: Buffer): Buffer {
  const head = Buffer.from([0x24, 0, 0, 0]);
  head.writeUInt16BE(packet.length, 2);
  return Buffer.concat([head, packet]);
}
