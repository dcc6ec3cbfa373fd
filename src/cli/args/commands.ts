/** The table of commands, from which help and completions are generated. */

export interface Command {
  readonly name: string;
  /** Positional arguments, as help shows them. */
  readonly usage: string;
  readonly summary: string;
  readonly examples: readonly string[];
  /** Topics of the pages that explain it. */
  readonly topics: readonly string[];
}

export const commands: readonly Command[] = [
  {
    name: "serve",
    usage: "[DIR|s3://BUCKET]",
    summary: "Receive frames and store them in DIR (default ./received) or a bucket",
    examples: [
      "frames serve",
      "frames serve /data/frames --max-frame 2G",
      "frames serve /data/frames --keep 7d    (frames help retention)",
      "frames serve s3://frames/site-a    (frames help many-machines)",
      "frames serve --listen :9726    (for other machines: frames help keys)",
      "frames serve --log json    (as a service: frames help service)",
    ],
    topics: ["start", "keys", "view", "service", "retention", "many-machines", "bucket-keys"],
  },
  {
    name: "send",
    usage: "DIR...",
    summary: "Send the frames in DIR; each folder that holds frames is a source",
    examples: [
      "frames send run7",
      "frames send run7 --to gpu1 --include '*.png'",
      "frames send run7 --include 'infrared/'",
      "frames send --stream run7 --source visible=/mnt/a --source infrared=/mnt/b",
      "frames send run7 --move    (for machines with small disks)",
    ],
    topics: [
      "start",
      "keys",
      "folders",
      "cameras",
      "video",
      "programs",
      "pipes",
      "mcap",
      "bandwidth",
      "troubleshooting",
    ],
  },
  {
    name: "receive",
    usage: "STREAM [DIR|FILE.mcap|VIDEO.mp4] | -",
    summary: "Copy a stream from a server to DIR (default ./STREAM), a file, or a pipe",
    examples: [
      "frames receive run7 --from gpu1    (again: only what is new)",
      "frames receive site live --from gpu1 --follow",
      "frames receive site site.mcap --since 2h    (frames help mcap)",
      "frames receive site gate.mp4 --source gate    (encoded video; also .mkv)",
      "frames receive site --source visible --follow --latest - | ffplay -",
      "frames receive site --multipart - | python3 show.py    (frames help pipes)",
    ],
    topics: ["receiving", "mcap", "programs", "pipes"],
  },
  {
    name: "ls",
    usage: "[STREAM] [--dir DIR]",
    summary: "List streams and sources of a store on this machine",
    examples: [
      "frames ls",
      "frames ls run7 --json",
      "frames ls run7 --gaps    (which numbers are missing, and why)",
    ],
    topics: ["start", "troubleshooting"],
  },
  {
    name: "verify",
    usage: "[DIR]",
    summary: "Compare the frames of a store (default ./received) with its journal",
    examples: [
      "frames verify",
      "frames verify /data/frames --repair",
      "frames verify s3://frames/site-a",
    ],
    topics: ["troubleshooting"],
  },
  {
    name: "bench",
    usage: "[HOST[:PORT]]",
    summary: "Measure this machine, or the link to a server (which stores nothing)",
    examples: [
      "frames bench",
      "frames bench --dir /data    (the disk of that folder)",
      "frames bench gpu1    (the link to it, also while it is in use)",
    ],
    topics: ["bandwidth"],
  },
  {
    name: "key",
    usage: "[new NAME|save [NAME]|list|remove NAME]",
    summary: "Show this machine's key (made if there is none), or manage several",
    examples: [
      "frames key    (on the server: prints its key)",
      "frames key save    (on the sender: reads the key from standard input)",
      "frames key new cam-3 --role send --streams 'site-a-*'",
    ],
    topics: ["keys"],
  },
  {
    name: "python",
    usage: "",
    summary: "Print a Python module that sends and receives frames",
    examples: ["frames python > frames.py"],
    topics: ["programs"],
  },
  {
    name: "help",
    usage: "[COMMAND|TOPIC]",
    summary: "Explain a command or a topic",
    examples: ["frames help send", "frames help exit-codes"],
    topics: [],
  },
  { name: "version", usage: "", summary: "Print the version", examples: [], topics: [] },
  {
    name: "completions",
    usage: "bash|zsh|fish",
    summary: "Print completions for a shell",
    examples: ["source <(frames completions bash)"],
    topics: [],
  },
];
