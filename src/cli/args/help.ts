/** `frames help`: generates help from the tables of commands and flags, and has the topics. */
import { errors, FramesError } from "../../errors.ts";
import { version } from "../../version.ts";
import { commands } from "./commands.ts";
import { nearest } from "./arguments.ts";
import { environmentName, type Flag, flags, flagsOf } from "./flags.ts";

/** Widths in terminal columns. */
const leftColumnWidth = 26;
const lineWidth = 80;

/** Wraps `text` at word boundaries. */
function wrap(text: string, columns: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = word;
    else if (line.length + word.length < columns) lines.push(`${lines.pop()} ${word}`);
    else lines.push(word);
  }
  return lines;
}

/** Formats a term and its explanation, which begins on the next line if the term is too wide. */
function row(left: string, right: string): string {
  const lines = wrap(right, lineWidth - leftColumnWidth);
  const beside = left.length < leftColumnWidth - 2 ? lines.shift()! : "";
  const first = `  ${left.padEnd(beside === "" ? 0 : leftColumnWidth - 2)}${beside}`;
  return [first, ...lines.map((line) => " ".repeat(leftColumnWidth) + line)].join("\n");
}

function flagRow(flag: Flag): string {
  const short = flag.short === undefined ? "" : `-${flag.short}, `;
  const value = flag.value === undefined ? "" : ` ${flag.value}`;
  return row(`${short}--${flag.name}${value}`, flag.help);
}

/** Returns what `frames` without arguments prints. */
export function overview(): string {
  return `frames ${version}: moves image frames between machines over one TCP connection

To receive:        frames serve
To send:           frames send DIR            on the same machine
                   frames send DIR --to HOST  from another: frames help serve
To get them back:  frames receive STREAM [DIR], or - for a pipe

Commands:
${commands.map(({ name, usage, summary }) => row(`${name} ${usage}`.trim(), summary)).join("\n")}

More: frames help COMMAND, frames help exit-codes
`;
}

function commandHelp(name: string): string | undefined {
  const command = commands.find((one) => one.name === name);
  if (command === undefined) return undefined;
  const { usage, summary, examples } = command;
  const exampleText = examples.length === 0 ? "" : `\nExamples:\n  ${examples.join("\n  ")}\n`;
  return `${wrap(summary, lineWidth).join("\n")}

Usage: frames ${`${name} ${usage}`.trim()} [FLAGS]

Flags:
${flagsOf(name).map(flagRow).join("\n")}
${exampleText}${name === "help" ? `\nTopics:\n${topicLines()}` : ""}`;
}

const topics: Record<string, () => string> = {
  "exit-codes": () => {
    const byCode = new Map<number, string[]>([[0, ["Done"]]]);
    for (const { exitCode: exit, sentence } of Object.values(errors)) {
      byCode.set(exit, [...(byCode.get(exit) ?? []), sentence]);
    }
    const rows = [...byCode].toSorted(([a], [b]) => a - b);
    return `Exit codes are rsync's:

${rows.flatMap(([code, sentences]) => sentences.map((text, index) => row(index === 0 ? String(code) : "", text))).join("\n")}
`;
  },
  article: () => `Moving over from the article's Python programs, one end at a time

  Its clients keep working:  frames serve --article 127.0.0.1:8000
  listens for them beside FRAMES/1. KIND|FOLDER becomes DIR/FOLDER/KIND, and a
  folder that is a path has its parts joined: data/run7 becomes data-run7. The
  last ok of a picture says that it is stored and in the journal. Pictures that
  are there already are taken again; one with a name that is taken by other
  bytes, or that cannot be used, ends the connection with a line in the log,
  for the dialect has no word for it. A client knows no key, so that beyond
  this machine the port is opened only with --article-insecure.

  Its servers keep working:
      frames send DIR --article --source visible --stream FOLDER --to HOST:PORT
  sends small pieces and waits for ok after each, and until all has been read
  before the next step. ok means read there, not stored; there is no checksum
  and no encryption; what breaks off is an error at once, and the same command
  sends all of it again. Each source has a connection of its own. Pictures of
  one byte come last: the published server never finishes one.

  Between two machines that have frames leave --article out.
`,
  environment: () => `Every flag can be set in the environment; a flag goes before it. Switches are
set by 1 and cleared by 0; a flag that is repeatable gets one value.

${flags
  .filter(({ name }) => name !== "help")
  .map((flag) => row(environmentName(flag), `--${flag.name}, for ${flag.commands.join(", ")}`))
  .join("\n")}
${row("FRAMES_KEY", "A key itself, for serve, send, receive and bench: asked for on this machine too")}
${row("NO_COLOR", "No colours")}
`,
  keep: () => `What is removed after a while

  frames serve --keep 7d removes frames that arrived more than 7 days ago (s, h
  and d are read); --keep 500G removes those that arrived first as long as all
  frames have more than 500 GiB (K, M, G and T). Without it nothing is removed.

  What counts is when and in which order frames arrived, by the server's clock:
  the clocks of cameras may be wrong. Sizes are those of the journal, so frames
  that somebody moved away count until it is their turn. The newest frame of a
  store always stays.

  The file goes and its row in the journal, then folders that are empty. A link
  or a file of another size in the place of a frame is somebody's own: it stays,
  and only the row goes. Losses go when they are as old, and with --keep SIZE
  when the frames of their time do. The log tells of it once a minute at most.

  A removed frame does not come again when the same directory is sent again: to
  the sender it was moved away since. --again sends it once more, as new. For
  that the server remembers 10 million removed frames, in some 50 bytes each;
  those removed first are forgotten first, and would come again.

  Frames that came and were removed are no gaps (frames ls STREAM --gaps).
`,
  keys: () => `Who is let in, and how

  On one machine no key is needed. A server that other machines can reach speaks
  TLS 1.3 and lets in whoever proves to have one of its keys; it proves the
  same, so that nobody can stand in between. No certificate has to be trusted.

  On the machine that serves:  frames serve --listen :9726
                               frames key          prints its key
  On the machine that sends:   frames key save     reads it, from standard input
                               frames send DIR --to HOST

  Keys are kept in ~/.config/frames/keys (on Windows in %APPDATA%), one a line:
  NAME KEY [send|receive|both [STREAMS]]; only their user may read it. A server
  lets in all of them, a sender tries them in order. One key per camera can be
  taken away alone:
      frames key new cam-3 --role send --streams 'site-a-*'
      frames key remove cam-3    (ends what it is sending within a second)

  Whoever looks at the page from elsewhere (frames serve --http :9727) logs in
  with a key of role receive or both, over TLS, and sees the streams it is for;
  programs send it as Authorization: Bearer KEY. With --http on loopback, the
  default, every user of the machine may look, unless a key is given.

  --key-file FILE and FRAMES_KEY ask for a key on this machine too, as behind a
  tunnel or a balancer. --insecure, at both ends, does without any.
`,
  live: () => `Frames that are sent while they are captured

  frames send DIR --watch          a folder that grows; new folders are sources
  capture | frames send - --stream S --source visible
                                   JPEG, PNG, PNM or BMP, one after the other,
                                   or --raw 640x512:gray16le
  frames send clip.mp4             a video, through ffmpeg; so are a camera
                                   (/dev/video0) and a URL (rtsp://, http://)

  Several at once:  frames send --stream S --source visible=/dev/video0
                      --source thermal=- --source lidar=./scans --watch
                      --policy visible=latest --fps lidar=10

  A file in a watched folder is complete when it was renamed into place, or has
  stood still for --settle; a JPEG or PNG never without its end. One that
  changes after it was sent replaces what this sender had sent. Files that are
  gone before they are read are told (exit 24). --since now leaves out what was
  there before.

  Frames without names are called after the start and their number, as in
  20261122T071203.123Z-00000042.jpg; frames of a video file after that. The
  name of a stream may hold %Y %m %d %H %M %S %j: --stream 'cam3-%Y-%m-%d', in
  UTC.

  With --fps or --realtime, what is there already is sent once more, and found
  there: each frame has to wait for its turn.

  Policies, when the link is slower than the source: block holds it up, which
  directories and pipes bear; latest:N keeps the newest N frames and drops
  others before they are sent (cameras: latest:30; latest alone is 1). What a
  policy that was chosen drops is no failure (--fail-on-gap makes it one),
  under the default it is exit 23. The server is told the numbers as it
  happens.

  --spool DIR keeps frames on the disk while the server is away, at most
  --spool-size; when it is back they are sent beside the live ones, also by the
  next process. When it is full the policy decides.

  Ctrl-C ends it: what was captured is delivered, for 10 s at most. kill -USR1
  has it report on each source: captured, delivered, dropped, late (over a
  second from capture to receipt), delays; --json has the same at the end.
`,
  receiving: () => `Frames back out of a server

  frames receive STREAM [DIR]      copies the stream into DIR: DIR/SOURCE/NAME,
                                   as it lies in the store, with a journal of
                                   its own in DIR/.frames
  frames receive STREAM -          writes one frame after the other, as they are

  Without more it ends with what is stored; --follow goes on with what arrives,
  and misses nothing between. What is received is in the order of arrival.

  The same command again goes on where the last one was, also when that was
  killed; what was moved away from DIR does not come again. Frames that the
  server replaced are replaced. frames ls --dir DIR and frames verify DIR read
  the copy; frames send DIR --stream STREAM sends it on, and back to where it
  came from it sends nothing. DIR is a copy of one stream of one server.

  A slow reader holds nobody up but itself: the server keeps its place and goes
  on when it reads on. --follow --latest is for looking: of each source the
  newest frame comes as soon as there is room, and what came in between is
  dropped and counted. Frames that the server has removed or cannot read are
  listed (exit 24, 23). With --keep, a server does not remove what a receiver
  that is connected, and reads, has still to get.

  Two sources through one pipe need --multipart. In Python:

      import subprocess
      pipe = subprocess.Popen(["frames", "receive", "site", "--follow",
          "--multipart", "-"], stdout=subprocess.PIPE).stdout
      while pipe.readline():                  # --frame
          facts = dict(line.decode().rstrip("\\r\\n").split(": ", 1)
              for line in iter(pipe.readline, b"\\r\\n"))
          image = pipe.read(int(facts["Content-Length"]))
          pipe.readline()
          print(facts["X-Source"], facts["X-Sequence"], facts["X-Captured"])

  X-Captured is in nanoseconds since 1970, X-Timestamp in seconds; X-Name is the
  name of the frame, X-Session its sender's session.
`,
  resume: () => `What happens when something breaks

  The link or the server: frames send connects again, after 1 s, then 2, up to
  30, and sends what has no receipt. It goes on for ever, or until nothing was
  confirmed for --give-up-after SECONDS (exit 30). Only a server that is not
  there at the beginning is an error at once.

  The sender: the same command again sends what the store lacks. What is there
  is known by name, size and time; where only the time differs, and always with
  --checksum, by CRC-32. What was moved away from the server since does not come
  again, unless --again is given.

  The server's disk: frames serve stops at --reserve, frames send waits, and
  both go on when there is room again. frames serve --durable flushes frames and
  journal to the disk before each receipt; what is sent with --move is always
  flushed, and removed at the sender only then.

  Frames whose names are taken by other bytes are refused and listed (exit 23);
  --on-conflict skip leaves them out, replace stores the new ones instead.

  frames verify holds a store against its journal; --repair sets damaged frames
  aside so that the next frames send brings them.
`,
  running: () => `How a server runs where nobody watches it

  What happens is one line each on standard error: with its time, or where that
  is systemd's journal with a priority instead. --log json makes objects of the
  lines, with time, level (debug, info, warning, error), type, message and what
  belongs to the event; errors before it serves too. --json tells the events on
  standard output instead, and leaves the rest where it is.

  SIGTERM, Ctrl-C   Senders are told, and go on at the next server; what came
                    has its receipt. Once more: at once (exit 20).
  SIGHUP            Keys and certificate are read again, for new connections;
                    who is connected stays, unless the key is gone. If the
                    terminal that it was started in is gone, it stops.

  With NOTIFY_SOCKET it tells systemd when it is ready, reloads and stops, and
  with WATCHDOG_USEC that it is alive. With LISTEN_FDS it serves the one socket
  that it was given; leave --listen out then.

  Where no --key-file is given, keys and the server's own certificate are in the
  folder frames below $XDG_CONFIG_HOME, else $STATE_DIRECTORY/.config, else
  $HOME/.config. A key file below $CREDENTIALS_DIRECTORY may be readable to a
  group. A certificate that cannot be kept is made anew at each start, which no
  sender minds. The README has units for systemd, and a container file.
`,
  see: () => `What frames serve shows, and to whom

  http://127.0.0.1:9727/ is a page with every stream, live and stored; --http
  HOST:PORT puts it elsewhere, where it asks for a key (frames help keys), and
  --http off leaves it out. From another machine without a key, through SSH:
      ssh -L 9727:127.0.0.1:9727 HOST

  Below it, for programs, with S for a stream and X for a source:
      /streams/S/sources/X/latest        the frame that came last, as it is
      /streams/S/sources/X/latest.mjpeg  live, for OpenCV, VLC, ffmpeg and <img>
      /streams/S/sources/X/frames/NAME   a stored frame, or numbers/N
      /api/streams, /api/streams/S/frames?source=X, /moment?at=TIME, /gaps
      /events      server-sent: rates, delays and gaps, once a second
      /metrics     for Prometheus; /healthz and /readyz

  Frames that are not JPEG are made so for .mjpeg, 16-bit grey scaled first; the
  stored frame stays as it is. Whoever looks on too slowly misses frames, and
  nobody waits for it: not the store, and not who sends. 256 may look on.
`,
  s3: () => `Frames into a bucket, by any number of servers

  frames serve s3://BUCKET/PREFIX keeps each frame as one object,
  PREFIX/STREAM/SOURCE/NAME, and its journal beside them. The server itself
  keeps nothing: any number of them may serve the same bucket, behind any TCP
  balancer, and a sender that loses one goes on at another.

  The bucket must be there. Where it is and who asks, the usual variables say:

  AWS_ENDPOINT_URL_S3     http://HOST:PORT or https://HOST of the engine (or
                          AWS_ENDPOINT_URL, S3_ENDPOINT); none: Amazon's
  AWS_REGION              default us-east-1
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and if there is one
  AWS_SESSION_TOKEN       a key that may get, put, delete and list objects

  The engine must create an object only if there is none (If-None-Match: *), as
  Amazon S3, Ceph and MinIO do; one that does not is refused at the start.

  Receipts come up to a second later than from a directory, for the frames of a
  second are recorded together; every frame is then as safe as the engine keeps
  it. While the bucket cannot be reached or is full, senders wait, say why, and
  go on. Frames over 8M go on to the bucket as they come.

  Each server has an order of arrival of its own. A frames receive that comes to
  another one goes through all of it again: into a directory nothing is twice;
  a pipe ends there, with exit 11.

  frames ls --dir s3://BUCKET/PREFIX and frames verify s3://BUCKET/PREFIX read
  it beside the servers. --keep, --reserve and --portable-names are for
  directories; what is old is removed by a lifecycle rule of the bucket, for
  PREFIX/STREAM/, never for PREFIX/.frames/. What was removed so does not come
  again when the same directory is sent again.
`,
  names: () => `What is sent, and under which names it is kept

  Every regular file is a frame, but hidden ones, *.tmp and *.part; folders of
  such names are left out too. Links, pipes and devices are not followed. Each
  folder that holds frames is a source, named by its path below DIR; frames
  directly in DIR belong to a source named like DIR.

  frames send run7 keeps run7/1.png as run7/1.png, and run7/visible/1.png as
  run7/visible/1.png, below the directory that frames serve was given.

  A pattern of --include or --exclude is held against names, one with a slash
  inside against paths below DIR. --include 'night/' brings in whole folders of
  that name; --exclude leaves out what matches, folders too, and goes before
  --include.

  A file that is still being written may be sent half done: write to NAME.part
  and rename. A frame that was stored counts as there already, also when it was
  moved away since or removed by --keep, and whatever its time is now.

  Names are refused that begin with a dot, hold control characters, a slash or a
  backslash, or are longer than 255 bytes; what Windows and macOS cannot keep is
  refused where the server runs on these, or with serve --portable-names.
`,
};

/** Help topics, in addition to the commands. */
export const topicNames: readonly string[] = Object.keys(topics).toSorted();

/** Formats the topic names as indented lines that fit into `lineWidth`. */
function topicLines(): string {
  const lines: string[] = [];
  for (const name of topicNames) {
    const line = lines.at(-1);
    if (line === undefined || line.length + name.length > 76) lines.push(`  ${name}`);
    else lines[lines.length - 1] = `${line}, ${name}`;
  }
  return `${lines.join(",\n")}\n`;
}

/**
 * Returns help on a command or topic, or the overview.
 *
 * @throws {FramesError} `usage` for an unknown topic
 */
export function help(topic: string | undefined): string {
  if (topic === undefined) return overview();
  const text = commandHelp(topic) ?? (Object.hasOwn(topics, topic) ? topics[topic]!() : undefined);
  if (text !== undefined) return text;
  const near = nearest(topic, [...commands.map(({ name }) => name), ...Object.keys(topics)]);
  const hint = near === undefined ? "see frames help" : `did you mean ${near}?`;
  throw new FramesError("usage", `No help on ${topic}: ${hint}`);
}
