/** Entry point of the page, and of the decode worker, which runs the same script. */
/// <reference lib="dom" />
import { ApiClient } from "./api.ts";
import { Dialogs } from "./dialogs.ts";
import { announce, byId, setAttribute, setText } from "./dom.ts";
import { EventStream } from "./event-stream.ts";
import { setTimeZone } from "./format.ts";
import { listenForKeys } from "./keyboard.ts";
import { LiveView } from "./live-view.ts";
import { Overview } from "./overview.ts";
import { browserStorage, Preferences } from "./preferences.ts";
import { RecordedView } from "./recorded-view.ts";
import { parseHash } from "./route.ts";
import { PageLogin } from "./login.ts";
import { serveDecodeWorker } from "./decode-worker.ts";
import { FrameDecoder } from "./frame-decoder.ts";

const isWorker = typeof document === "undefined";

async function startPage(): Promise<void> {
  const dialogs = new Dialogs();
  const login = new PageLogin(dialogs);
  const api = new ApiClient(() => login.askForKey());
  const preferences = new Preferences(browserStorage());
  setTimeZone(preferences.timeZone);
  const overview = new Overview(preferences);
  const options = { decoder: new FrameDecoder(import.meta.url), preferences };
  const live = new LiveView(byId("live", HTMLElement), api, options, (stream, source) => {
    void login.showAddress(api, stream, source);
  });
  const recorded = new RecordedView(byId("recorded", HTMLElement), api, options);

  await login.start();
  const applyRoute = (): void => {
    const route = parseHash(location.hash);
    live.show(route);
    byId("pause", HTMLElement).hidden = !live.isShown;
    document.title = route === undefined ? "frames" : `${route.stream} – frames`;
    const view = live.isShown ? "Live" : "Recorded";
    setText(byId("title", HTMLElement), route === undefined ? view : `${view}: ${route.stream}`);
    void recorded.show(live.isShown ? undefined : route);
  };
  window.addEventListener("hashchange", () => {
    applyRoute();
    // Moves the focus, because the focused element may no longer be visible.
    window.scrollTo(0, 0);
    byId("main", HTMLElement).focus({ preventScroll: true });
  });
  applyRoute();

  const pause = byId("pause", HTMLButtonElement);
  let isPaused = false;
  const togglePause = (): void => {
    isPaused = !isPaused;
    live.isPaused = isPaused;
    setText(pause, isPaused ? "Resume" : "Pause");
    document.body.classList.toggle("paused", isPaused);
    announce(isPaused ? "Live pictures paused" : "Live pictures continue");
  };
  pause.addEventListener("click", togglePause);
  const zone = byId("zone", HTMLButtonElement);
  const showZone = (): void => {
    const isLocal = preferences.timeZone === "local";
    setText(zone, isLocal ? "Local time" : "UTC");
    setAttribute(zone, "aria-pressed", `${isLocal}`);
  };
  zone.addEventListener("click", () => {
    preferences.timeZone = preferences.timeZone === "UTC" ? "local" : "UTC";
    setTimeZone(preferences.timeZone);
    showZone();
    for (const view of [overview, live, recorded]) view.onTimeZoneChange();
  });
  showZone();
  byId("help", HTMLElement).addEventListener("click", () => dialogs.showShortcuts());
  byId("skip", HTMLElement).addEventListener("click", () => byId("main", HTMLElement).focus());
  listenForKeys({ dialogs, live, recorded, togglePause, isRecordedView: () => !live.isShown });

  new EventStream(api, {
    onOnlineChange(isOnline) {
      overview.isOnline = isOnline;
      live.isOnline = isOnline;
    },
    onProblems: (problems) => overview.setProblems(problems),
    onProblem: (problem) => overview.addProblem(problem),
    onState(state) {
      overview.update(state);
      live.update(state);
      recorded.update(state);
    },
  });
}

if (isWorker) serveDecodeWorker();
else void startPage();
