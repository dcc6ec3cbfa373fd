/** Where the page begins, and the worker that paints grey pictures: both are this one script. */
/// <reference lib="dom" />
import { Api, ApiError, sourcePath } from "./api.ts";
import { Dialogs } from "./dialogs.ts";
import { announce, byId, mark, say } from "./dom.ts";
import { Events } from "./events.ts";
import { moment, nanoseconds } from "./format.ts";
import { listenForKeys } from "./keyboard.ts";
import { LiveView } from "./live.ts";
import { Overview } from "./overview.ts";
import { RecordedView } from "./recorded.ts";
import { placeOf } from "./route.ts";
import { serveThermal, Thermal } from "./thermal.ts";

const isWorker = typeof document === "undefined";

function begin(): void {
  const dialogs = new Dialogs();
  const api = new Api(() => dialogs.askForKey(enter));
  const thermal = new Thermal(import.meta.url);
  const overview = new Overview();
  const live = new LiveView(byId("live", HTMLElement), api, thermal, (stream, source) => {
    void copyAddress(api, dialogs, stream, source);
  });
  const recorded = new RecordedView(byId("recorded", HTMLElement), api, thermal);

  const route = (): void => {
    const place = placeOf(location.hash);
    live.isShown = place === undefined;
    byId("pause", HTMLElement).hidden = place !== undefined;
    document.title = place === undefined ? "frames" : `${place.stream} – frames`;
    say(byId("title", HTMLElement), place === undefined ? "Live" : `Recorded: ${place.stream}`);
    void recorded.show(place);
  };
  window.addEventListener("hashchange", route);
  route();

  const pause = byId("pause", HTMLButtonElement);
  let isPaused = false;
  const togglePause = (): void => {
    isPaused = !isPaused;
    live.isPaused = isPaused;
    mark(pause, "aria-pressed", `${isPaused}`);
    document.body.classList.toggle("paused", isPaused);
    announce(isPaused ? "Pictures stand still" : "Pictures go on");
  };
  pause.addEventListener("click", togglePause);
  byId("help", HTMLElement).addEventListener("click", () => dialogs.showKeys());
  byId("skip", HTMLElement).addEventListener("click", () => byId("main", HTMLElement).focus());
  listenForKeys({ dialogs, live, recorded, togglePause, isRecorded: () => !live.isShown });

  new Events(api, {
    present: (isPresent) => (overview.isPresent = isPresent),
    problems: (problems) => overview.remember(problems),
    problem: (problem) => overview.add(problem),
    state(state) {
      overview.update(state);
      live.update(state);
      recorded.update(state);
    },
  });
}

/** Gives the key to the server; what is wrong comes back as words. */
async function enter(key: string): Promise<string | undefined> {
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key }),
    });
    if (answer.ok) return undefined;
    const { message } = (await answer.json()) as { message?: unknown };
    return typeof message === "string" ? message : `The server answered with ${answer.status}`;
  } catch {
    return "The server does not answer";
  }
}

/** Shows where other programs find a source: with a token of its own where the server asks for keys. */
async function copyAddress(
  api: Api,
  dialogs: Dialogs,
  stream: string,
  source: string,
): Promise<void> {
  const plain = `${location.origin}${sourcePath(stream, source)}/latest.mjpeg`;
  try {
    const made = await api.post<{ address?: string; expires?: string }>("/api/tokens", {
      stream,
      source,
    });
    const ends = nanoseconds(made.expires);
    const address = made.address === undefined ? plain : new URL(made.address, location.href).href;
    await dialogs.showAddress(
      source,
      address,
      ends === undefined ? undefined : `${moment(ends).slice(0, 16)} UTC`,
    );
  } catch (error) {
    // A server that asks nobody for a key has no tokens either.
    if (error instanceof ApiError && (error.status === 404 || error.status === 405)) {
      await dialogs.showAddress(source, plain, undefined);
    } else dialogs.showFailure(error instanceof Error ? error.message : `${error}`);
  }
}

if (isWorker) serveThermal();
else begin();
