// Drives a real browser and reads what its page shows.

import { hangMs, within } from "./time.ts";

const path = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"]
  .map((name) => Bun.which(name))
  .find((found) => found !== null);

/** Prefix for the name of a test that needs a browser; empty if there is one. */
export const noBrowser: string =
  path === undefined || process.platform === "win32" ? "skipped: needs chromium: " : "";

/** Interval in milliseconds at which a page checks what a test waits for. */
const watchIntervalMs = 10;
/** Time in milliseconds after which the page is asked again. */
const maxWatchMs = 1000;

/** How the page is displayed. */
export interface Look {
  readonly width: number;
  readonly height: number;
  readonly scheme?: "light" | "dark";
  /** Whether the user wants little motion. */
  readonly isReducedMotion?: boolean;
}

/** A position of the window, in CSS pixels. */
export interface Position {
  readonly x: number;
  readonly y: number;
}

export class Browser {
  readonly #view: Bun.WebView;
  /** Console output, including browser warnings and uncaught errors. */
  readonly console: string[];

  private constructor(view: Bun.WebView, console: string[]) {
    this.#view = view;
    this.console = console;
  }

  /** Opens a page. The first one of a process starts its browser. */
  static async open(): Promise<Browser> {
    const said: string[] = [];
    const view = new Bun.WebView({
      backend: {
        type: "chrome",
        path: path!,
        url: false,
        // The sandbox does not work for root, as in a container.
        argv: ["--hide-scrollbars", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])],
      },
      console: (type: string, ...words: unknown[]) => {
        said.push(`${type}: ${words.map((word) => JSON.stringify(word)).join(" ")}`);
      },
    });
    await view.navigate("about:blank");
    view.addEventListener("Log.entryAdded", (event) => {
      const { entry } = dataOf<{ entry: { level: string; text: string; url?: string } }>(event);
      said.push(`${entry.level}: ${entry.text} ${entry.url ?? ""}`);
    });
    view.addEventListener("Runtime.exceptionThrown", (event) => {
      said.push(`thrown: ${JSON.stringify(dataOf(event))}`);
    });
    await view.cdp("Log.enable");
    await view.cdp("Runtime.enable");
    return new Browser(view, said);
  }

  async look({ width, height, scheme = "light", isReducedMotion = false }: Look): Promise<void> {
    await this.#view.cdp("Emulation.setEmulatedMedia", {
      features: [
        { name: "prefers-color-scheme", value: scheme },
        { name: "prefers-reduced-motion", value: isReducedMotion ? "reduce" : "no-preference" },
      ],
    });
    await this.#view.cdp("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: false,
    });
  }

  /** Sets the time zone of the browser, such as `Asia/Kolkata`. */
  async timeZone(timezoneId: string): Promise<void> {
    await this.#view.cdp("Emulation.setTimezoneOverride", { timezoneId });
  }

  async go(url: string): Promise<void> {
    // A URL that differs only in its hash would not be loaded again.
    await this.#view.navigate("about:blank");
    await this.#view.navigate(url);
  }

  /** Returns the value of an expression in the page. */
  read<T>(expression: string): Promise<T> {
    return this.#view.evaluate<T>(expression);
  }

  async press(key: string): Promise<void> {
    await this.#view.press(key as Parameters<Bun.WebView["press"]>[0]);
  }

  async type(text: string): Promise<void> {
    await this.#view.type(text);
  }

  async click(selector: string): Promise<void> {
    await this.#view.click(selector, { timeout: hangMs });
  }

  /** Moves, presses or releases the mouse, or turns its wheel, at a position of the window. */
  async mouse(
    type: "mouseMoved" | "mousePressed" | "mouseReleased" | "mouseWheel",
    at: Position,
    deltaY = 0,
    clickCount = 1,
  ): Promise<void> {
    const isPressed = type === "mousePressed" || type === "mouseReleased";
    const button = isPressed ? { button: "left", clickCount } : {};
    await this.#view.cdp("Input.dispatchMouseEvent", { type, ...at, ...button, deltaX: 0, deltaY });
  }

  /** Puts fingers on the screen, moves them, or takes all of them away. */
  async touch(
    type: "touchStart" | "touchMove" | "touchEnd",
    fingers: readonly Position[] = [],
  ): Promise<void> {
    const touchPoints = fingers.map((at, id) => ({ ...at, id }));
    await this.#view.cdp("Input.dispatchTouchEvent", { type, touchPoints });
  }

  /** Returns figures of the page: seconds that its main thread worked, and bytes of its heap. */
  async metrics(): Promise<{ busySeconds: number; heapBytes: number }> {
    await this.#view.cdp("Performance.enable");
    await this.#view.cdp("HeapProfiler.collectGarbage");
    const { metrics } = (await this.#view.cdp("Performance.getMetrics")) as {
      metrics: { name: string; value: number }[];
    };
    const value = (wanted: string) => metrics.find(({ name }) => name === wanted)?.value ?? NaN;
    return { busySeconds: value("TaskDuration"), heapBytes: value("JSHeapUsedSize") };
  }

  /** Returns a screenshot as PNG. */
  async picture(): Promise<Uint8Array> {
    return await this.#view.screenshot({ encoding: "buffer" });
  }

  /** Waits until an expression in the page is true. The page itself watches it. */
  async until(what: string, expression: string): Promise<void> {
    const watch = `new Promise((resolve) => {
      const end = performance.now() + ${maxWatchMs};
      const check = () => {
        const isSo = (() => { try { return Boolean(${expression}); } catch { return false; } })();
        if (isSo || performance.now() > end) resolve(isSo);
        else setTimeout(check, ${watchIntervalMs});
      };
      check();
    })`;
    let isSo = false;
    // A page that is loaded anew forgets what it watches.
    const ask = async (): Promise<void> => {
      while (!isSo) {
        isSo = await this.read<boolean>(watch).catch(() => false);
        if (!isSo) await Bun.sleep(watchIntervalMs);
      }
    };
    await within(ask(), () => {
      isSo = true;
      return `${what} did not come; on the console: ${this.console.join("\n") || "nothing"}`;
    });
  }

  /** Closes the page. The browser stays for the next file of this process, and ends with it. */
  close(): void {
    this.#view.close();
  }
}

function dataOf<T>(event: unknown): T {
  return (event as { data: T }).data;
}
