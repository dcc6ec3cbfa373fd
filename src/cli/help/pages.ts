/** The pages of the manual: one for each topic of `frames help`, in the order in which it lists them. */
import article from "./article.md" with { type: "text" };
import bandwidth from "./bandwidth.md" with { type: "text" };
import bucketKeys from "./bucket-keys.md" with { type: "text" };
import cameras from "./cameras.md" with { type: "text" };
import container from "./container.md" with { type: "text" };
import edge from "./edge.md" with { type: "text" };
import environment from "./environment.md" with { type: "text" };
import exitCodes from "./exit-codes.md" with { type: "text" };
import folders from "./folders.md" with { type: "text" };
import keys from "./keys.md" with { type: "text" };
import mcap from "./mcap.md" with { type: "text" };
import manyMachines from "./many-machines.md" with { type: "text" };
import pipes from "./pipes.md" with { type: "text" };
import programs from "./programs.md" with { type: "text" };
import receive from "./receive.md" with { type: "text" };
import retention from "./retention.md" with { type: "text" };
import service from "./service.md" with { type: "text" };
import start from "./start.md" with { type: "text" };
import troubleshooting from "./troubleshooting.md" with { type: "text" };
import video from "./video.md" with { type: "text" };
import view from "./view.md" with { type: "text" };

/** A page of the manual. */
export interface Page {
  readonly topic: string;
  /** Name of its file, without the ending; differs from `topic` where a command has that name. */
  readonly file: string;
  /** A few words, for the list of topics. */
  readonly summary: string;
  /** Markdown. */
  readonly text: string;
}

export const pages: readonly Page[] = [
  page("start", "First steps on one machine", start),
  page("keys", "Send from another machine", keys),
  page("folders", "Data sets, time lapse, growing folders", folders),
  page("cameras", "Cameras, RTSP, videos", cameras),
  page("video", "H.264 and H.265 as they are", video),
  page("programs", "Python: numpy, OpenCV, ROS", programs),
  page("pipes", "Pipes, raw frames, other languages", pipes),
  page("view", "The page, HTTP addresses, Prometheus", view),
  page("receive", "Get frames back, live or as a copy", receive, "receiving"),
  page("mcap", "MCAP files, in and out: Foxglove, Rerun", mcap),
  page("troubleshooting", "When something breaks", troubleshooting),
  page("bandwidth", "Slow links: policies, limits, measuring", bandwidth),
  page("edge", "Offline and unattended senders", edge),
  page("service", "A server under systemd", service),
  page("container", "Docker, Windows", container),
  page("many-machines", "Many servers and an S3 bucket", manyMachines),
  page("bucket-keys", "Keys of a bucket: AWS profiles, roles", bucketKeys),
  page("retention", "Remove old frames", retention),
  page("article", "The Python programs of the article", article),
  page("exit-codes", "What exit codes mean", exitCodes),
  page("environment", "Flags as environment variables", environment),
];

function page(file: string, summary: string, text: string, topic = file): Page {
  return { topic, file, summary, text };
}

/** Topics of earlier versions, and the topic that has their text now. */
const formerTopics: Readonly<Record<string, string>> = {
  keep: "retention",
  live: "cameras",
  names: "folders",
  resume: "troubleshooting",
  running: "service",
  s3: "many-machines",
  see: "view",
};

/** Returns the page of a topic, also of one that has another name now. */
export function findPage(topic: string): Page | undefined {
  const current = Object.hasOwn(formerTopics, topic) ? formerTopics[topic] : topic;
  return pages.find((one) => one.topic === current);
}
