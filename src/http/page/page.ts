/** Entry point of the page, and of the paint worker, which runs the same script. */
/// <reference lib="dom" />
import { ApiClient } from "./api.ts";
import { Dialogs } from "./dialogs.ts";
import { announce, byId, setAttribute, setText } from "./dom.ts";
import { EventStream } from "./event-stream.ts";
import { listenForKeys } from "./keyboard.ts";
import { LiveView } from "./live-view.ts";
import { Overview } from "./overview.ts";
import { RecordedView } from "./recorded-view.ts";
import { parseHash } from "./route.ts";
import { PageLogin } from "./login.ts";
import { servePaintWorker, GreyPainter } from "./grey-painter.ts";

const isWorker = typeof document === "undefined";

async function startPage(): Promise<void> {
  const dialogs = new Dialogs();
  const login = new PageLogin(dialogs);
  const api = new ApiClient(() => login.askForKey());
  const painter = new GreyPainter(import.meta.url);
  const overview = new Overview();
  const live = new LiveView(byId("live", HTMLElement), api, painter, (stream, source) => {
    void login.showAddress(api, stream, source);
  });
  const recorded = new RecordedView(byId("recorded", HTMLElement), api, painter);

  await login.start();
  const applyRoute = (): void => {
    const route = parseHash(location.hash);
    live.isShown = route === undefined;
    byId("pause", HTMLElement).hidden = route !== undefined;
    document.title = route === undefined ? "frames" : `${route.stream} – frames`;
    setText(byId("title", HTMLElement), route === undefined ? "Live" : `Recorded: ${route.stream}`);
    void recorded.show(route);
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
    setAttribute(pause, "aria-pressed", `${isPaused}`);
    document.body.classList.toggle("paused", isPaused);
    announce(isPaused ? "Live pictures paused" : "Live pictures continue");
  };
  pause.addEventListener("click", togglePause);
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

if (isWorker) servePaintWorker();
else void startPage();
