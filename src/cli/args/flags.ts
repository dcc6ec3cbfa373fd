/** The table of flags: parsing, help, environment names and completions are based on it. */
import { defined } from "../../common/defined.ts";
import { commands } from "./commands.ts";

/** A flag of one or more commands. */
export interface Flag {
  readonly name: string;
  readonly short?: string;
  /** Placeholder of the value in help, such as `HOST:PORT`. A switch has none. */
  readonly value?: string;
  readonly isRepeatable?: true;
  readonly help: string;
  /** Help text by command, where it differs from `help`. */
  readonly helpFor?: Readonly<Record<string, string>>;
  /** Placeholder by command, where it differs from `value`. */
  readonly valueFor?: Readonly<Record<string, string>>;
  /** Commands for which the flag is a switch, although it has a value for others. */
  readonly switchFor?: readonly string[];
  readonly commands: readonly string[];
}

const allCommands = commands.map(({ name }) => name);

export const flags: readonly Flag[] = [
  {
    name: "listen",
    value: "HOST:PORT",
    help: "Address to listen at (default 127.0.0.1:9726); :9726 is every interface",
    commands: ["serve"],
  },
  {
    name: "http",
    value: "HOST:PORT|off",
    help: "Address of the page (default 127.0.0.1:9727; frames help view)",
    commands: ["serve"],
  },
  {
    name: "insecure",
    help: "Accept every sender and viewer, without key or encryption",
    helpFor: {
      send: "Send without key or encryption; the server needs the flag too",
      receive: "Receive without key or encryption; the server needs the flag too",
      bench: "Measure without key or encryption; the server needs the flag too",
    },
    commands: ["serve", "send", "receive", "bench"],
  },
  {
    name: "key-file",
    value: "FILE",
    help: "Require a key of this file, also from this machine (frames help keys)",
    helpFor: {
      send: "Use the keys of this file, also on this machine (frames help keys)",
      receive: "Use the keys of this file, also on this machine (frames help keys)",
      bench: "Use the keys of this file, also on this machine (frames help keys)",
      key: "The key file (default: the user's own, frames help keys)",
    },
    commands: ["serve", "send", "receive", "bench", "key"],
  },
  {
    name: "tls-cert",
    value: "FILE",
    help: "A certificate (PEM) that browsers trust, with --tls-key",
    commands: ["serve"],
  },
  {
    name: "tls-key",
    value: "FILE",
    help: "The private key (PEM) of --tls-cert",
    commands: ["serve"],
  },
  {
    name: "role",
    value: "send|receive|both",
    help: "What the new key allows (default both)",
    commands: ["key"],
  },
  {
    name: "streams",
    value: "GLOB",
    help: "Streams that the new key allows (default all)",
    commands: ["key"],
  },
  {
    name: "article",
    value: "HOST:PORT",
    help: "Listen for the article's clients as well (frames help article)",
    helpFor: { send: "Send to the article's server, at --to HOST:PORT (frames help article)" },
    switchFor: ["send"],
    commands: ["serve", "send"],
  },
  {
    name: "article-insecure",
    help: "Accept every client of --article: they have no keys",
    commands: ["serve"],
  },
  { name: "max-frame", value: "SIZE", help: "Largest frame (default 64M)", commands: ["serve"] },
  {
    name: "portable-names",
    help: "Refuse names that Windows and macOS cannot store",
    commands: ["serve"],
  },
  {
    name: "durable",
    help: "Flush to the disk before each receipt: survives a power cut",
    commands: ["serve"],
  },
  {
    name: "reserve",
    value: "SIZE",
    help: "Space kept free on the disk (default 5 %, 10G at most)",
    commands: ["serve"],
  },
  {
    name: "keep",
    value: "TIME|SIZE",
    help: "Delete frames after a time such as 7d, or the oldest beyond 500G (frames help retention)",
    commands: ["serve"],
  },
  {
    name: "to",
    value: "HOST[:PORT]",
    help: "The server (default 127.0.0.1:9726)",
    commands: ["send"],
  },
  {
    name: "from",
    value: "HOST[:PORT]",
    help: "The server (default 127.0.0.1:9726)",
    commands: ["receive"],
  },
  {
    name: "stream",
    value: "NAME",
    help: "Store under this stream, as STREAM/DIR (default: the name of DIR)",
    commands: ["send"],
  },
  {
    name: "source",
    value: "NAME[=PATH]",
    isRepeatable: true,
    help: "Name a source; repeatable",
    helpFor: { receive: "Receive this source only; repeatable" },
    valueFor: { receive: "NAME" },
    commands: ["send", "receive"],
  },
  { name: "follow", help: "Continue with new frames, until Ctrl-C", commands: ["receive"] },
  { name: "first", value: "N", help: "End after N frames", commands: ["receive"] },
  {
    name: "latest",
    help: "Only the newest frame of each source; with --follow, drop older ones",
    commands: ["receive"],
  },
  {
    name: "multipart",
    help: "With -: each frame has a header with source, time, name and length",
    commands: ["send", "receive"],
  },
  {
    name: "receipts",
    help: "Write a JSON line for each frame that the server has settled",
    commands: ["send"],
  },
  {
    name: "include",
    value: "GLOB",
    isRepeatable: true,
    help: "Send only files that match; repeatable",
    commands: ["send"],
  },
  {
    name: "exclude",
    value: "GLOB",
    isRepeatable: true,
    help: "Leave out files that match; repeatable",
    commands: ["send"],
  },
  {
    name: "on-conflict",
    value: "fail|skip|replace",
    help: "If other bytes are stored under a name (default fail)",
    commands: ["send"],
  },
  {
    name: "checksum",
    short: "c",
    help: "Compare by CRC-32, not by size and time",
    commands: ["send"],
  },
  {
    name: "again",
    help: "Send frames again that were moved away from the server",
    commands: ["send"],
  },
  {
    name: "move",
    help: "Delete each file here once it is safe on the server's disk",
    commands: ["send"],
  },
  { name: "dry-run", short: "n", help: "Only list what would be sent", commands: ["send"] },
  { name: "watch", help: "Send existing files, then new ones, until Ctrl-C", commands: ["send"] },
  {
    name: "since",
    value: "TIME|now",
    help: "With --watch: leave out older files; a time, or an age such as 2h",
    helpFor: { receive: "Leave out older frames; a time, or an age such as 2h" },
    commands: ["send", "receive"],
  },
  {
    name: "until",
    value: "TIME|now",
    help: "Leave out frames of that time and newer ones; a time, or an age such as 1h",
    commands: ["receive"],
  },
  {
    name: "segment",
    value: "TIME|SIZE",
    help: "A new MCAP file after a time such as 10m, or a size such as 500M",
    commands: ["receive"],
  },
  {
    name: "settle",
    value: "MS",
    help: "A file unchanged for MS is complete (default 250, with --move 2000)",
    commands: ["send"],
  },
  {
    name: "policy",
    value: "[SOURCE=]block|latest[:N]",
    isRepeatable: true,
    help: "If a live queue is full: wait, or keep the newest N; repeatable",
    commands: ["send"],
  },
  {
    name: "spool",
    value: "DIR",
    help: "Keep live frames in DIR until the server has them; survives a kill",
    commands: ["send"],
  },
  {
    name: "spool-size",
    value: "SIZE",
    help: "Limit of the spool's size (default 10G)",
    commands: ["send"],
  },
  {
    name: "camera",
    value: "[SOURCE=]WxH:FORMAT@FPS",
    isRepeatable: true,
    help: "Mode of a camera, such as 640x512:gray16le@30; repeatable",
    commands: ["send"],
  },
  {
    name: "quality",
    value: "[SOURCE=]N",
    isRepeatable: true,
    help: "JPEG quality of video, from 2 (default, best) to 31; repeatable",
    commands: ["send"],
  },
  { name: "lossless", help: "Convert video to PNG instead of JPEG", commands: ["send"] },
  {
    name: "convert",
    value: "[SOURCE=]jpeg|png",
    isRepeatable: true,
    help: "Make pictures of a camera's H.264 or H.265; repeatable",
    commands: ["send"],
  },
  {
    name: "copy-video",
    help: "Send H.264 and H.265 of video files as they are",
    commands: ["send"],
  },
  {
    name: "fail-on-gap",
    help: "Exit with 23 if a chosen --policy dropped frames",
    commands: ["send"],
  },
  {
    name: "fps",
    value: "[SOURCE=]N",
    isRepeatable: true,
    help: "Send at most N frames a second; repeatable",
    commands: ["send"],
  },
  { name: "realtime", help: "Send at the pace of the capture times", commands: ["send"] },
  {
    name: "bwlimit",
    value: "RATE",
    help: "Send at most RATE bytes a second, such as 5M",
    commands: ["send"],
  },
  {
    name: "raw",
    value: "[SOURCE=]WxH:FORMAT|h264|h265",
    isRepeatable: true,
    help: "Read raw frames or encoded video from a pipe; repeatable",
    commands: ["send"],
  },
  {
    name: "timeout",
    value: "SECONDS",
    help: "Disconnect a peer that is silent for SECONDS (default 30)",
    commands: ["serve", "send", "receive"],
  },
  {
    name: "give-up-after",
    value: "SECONDS",
    help: "Give up if no frame is confirmed for SECONDS (default: never)",
    helpFor: { receive: "Give up if no frame arrives for SECONDS (default: never)" },
    commands: ["send", "receive"],
  },
  { name: "ignore-missing", help: "Accept that frames were moved away", commands: ["verify"] },
  {
    name: "accept",
    help: "Accept the losses and unchecked frames found: later runs do not report them",
    commands: ["verify"],
  },
  {
    name: "repair",
    help: "Move damaged frames aside, so that the next send replaces them",
    commands: ["verify"],
  },
  { name: "gaps", help: "Show which numbers of STREAM are missing, and why", commands: ["ls"] },
  {
    name: "dir",
    value: "DIR",
    help: "The store (default ./received), or s3://BUCKET/PREFIX",
    helpFor: { bench: "Where to put temporary files (default: the system's folder for them)" },
    commands: ["ls", "bench"],
  },
  {
    name: "log",
    value: "text|json",
    help: "Log to standard error as text (default) or as JSON lines",
    commands: ["serve"],
  },
  {
    name: "json",
    help: "One JSON object per line on standard output",
    helpFor: { serve: "Print events to standard output, as JSON lines" },
    commands: ["serve", "send", "receive", "ls", "verify", "bench", "key"],
  },
  {
    name: "quiet",
    short: "q",
    help: "Print errors only",
    commands: ["serve", "send", "receive", "verify"],
  },
  {
    name: "verbose",
    short: "v",
    help: "Show every message and frame of the protocol",
    commands: ["serve", "send", "receive"],
  },
  { name: "help", short: "h", help: "Explain this command", commands: allCommands },
];

/** Returns the flags of a command, with the help and value that apply to it. */
export function flagsOf(command: string): readonly Flag[] {
  return flags
    .filter((flag) => flag.commands.includes(command))
    .map((flag) => forCommand(flag, command));
}

function forCommand({ value: usualValue, ...flag }: Flag, command: string): Flag {
  const isSwitch = flag.switchFor?.includes(command) === true;
  const value = isSwitch ? undefined : (flag.valueFor?.[command] ?? usualValue);
  return { ...flag, help: flag.helpFor?.[command] ?? flag.help, ...defined({ value }) };
}

/** Returns the environment variable of a flag: `FRAMES_KEY_FILE` for `key-file`. */
export function environmentName(flag: Pick<Flag, "name">): string {
  return `FRAMES_${flag.name.toUpperCase().replaceAll("-", "_")}`;
}
