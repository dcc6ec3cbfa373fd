/** Where the page begins, and the worker that paints grey pictures: both are this one script. */
/// <reference lib="dom" />
import { Api } from "./api.ts";
import { Dialogs } from "./dialogs.ts";
import { announce, byId, mark, say } from "./dom.ts";
import { Events } from "./events.ts";
import { listenForKeys } from "./keyboard.ts";
import { LiveView } from "./live.ts";
import { Overview } from "./overview.ts";
import { RecordedView } from "./recorded.ts";
import { placeOf } from "./route.ts";
import { Session } from "./session.ts";
import { serveThermal, Thermal } from "./thermal.ts";

const isWorker = typeof document === "undefined";

async function begin(): Promise<void> {
  const dialogs = new Dialogs();
  const session = new Session(dialogs);
  const api = new Api(() => session.askForKey());
  const thermal = new Thermal(import.meta.url);
  const overview = new Overview();
  const live = new LiveView(byId("live", HTMLElement), api, thermal, (stream, source) => {
    void session.showAddress(api, stream, source);
  });
  const recorded = new RecordedView(byId("recorded", HTMLElement), api, thermal);

  await session.begin();
  const route = (): void => {
    const place = placeOf(location.hash);
    live.isShown = place === undefined;
    byId("pause", HTMLElement).hidden = place !== undefined;
    document.title = place === undefined ? "frames" : `${place.stream} – frames`;
    say(byId("title", HTMLElement), place === undefined ? "Live" : `Recorded: ${place.stream}`);
    void recorded.show(place);
  };
  window.addEventListener("hashchange", () => {
    route();
    // What had the focus is not there any more.
    window.scrollTo(0, 0);
    byId("main", HTMLElement).focus({ preventScroll: true });
  });
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
    present(isPresent) {
      overview.isPresent = isPresent;
      live.isPresent = isPresent;
    },
    problems: (problems) => overview.remember(problems),
    problem: (problem) => overview.add(problem),
    state(state) {
      overview.update(state);
      live.update(state);
      recorded.update(state);
    },
  });
}

if (isWorker) serveThermal();
else void begin();
