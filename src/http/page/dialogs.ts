/** Dialogs: keyboard shortcuts, login, stream address and failure. */
/// <reference lib="dom" />
import { button, element, setText } from "./dom.ts";

/** Keyboard shortcuts and their descriptions. */
const shortcuts: readonly (readonly [string, string])[] = [
  ["?", "show these shortcuts"],
  ["f", "full screen"],
  ["p", "next palette of grey pictures"],
  ["Escape", "close; show the whole picture again; back to the wall"],
  ["space", "live: pause or continue; recorded: play or stop"],
  ["[ and ]", "the previous or the next source"],
  ["+ − 0 1", "on a picture: zoom, whole picture, single pixels; Shift and arrows move it"],
  ["Enter", "on a picture: read its values; arrows move, with Shift by 16"],
  ["left, right", "recorded: one frame back or forward; with Shift ten"],
  [", and .", "recorded: one frame back or forward, also while a picture has the focus"],
  ["j k l", "recorded: play backwards, stop, play; twice is double the speed, stop is back to 1×"],
  ["Home, End", "recorded: the first or the last frame"],
  ["n, Shift n", "recorded: the next or the previous gap"],
  ["g", "recorded: go to a frame number or a time"],
  ["+ − 0", "recorded: zoom the timeline in or out, or show all"],
  ["d", "recorded: download the frame"],
];

/** An address for other programs, and what the dialog says of it. */
export interface AddressToShow {
  readonly title: string;
  readonly address: string;
  /** What the address gives access to and for how long, or empty. */
  readonly note: string;
  /** How other programs use it. */
  readonly example: string;
  /** Buttons that lead to other addresses. */
  readonly others?: Readonly<Record<string, () => void>>;
}

export class Dialogs {
  #shortcutsDialog: HTMLDialogElement | undefined;

  /** Shows the keyboard shortcuts. */
  showShortcuts(): void {
    this.#shortcutsDialog ??= createShortcutsDialog();
    if (!this.#shortcutsDialog.open) this.#shortcutsDialog.showModal();
  }

  /** Whether a dialog is open, which then receives all keys. */
  get isOpen(): boolean {
    return document.querySelector("dialog[open]") !== null;
  }

  /**
   * Asks for the key until `submitKey` accepts one.
   *
   * @param submitKey resolves with an error message, or with undefined if the key was accepted
   */
  askForKey(submitKey: (key: string) => Promise<string | undefined>): Promise<void> {
    const input = element("input", {
      type: "password",
      name: "key",
      id: "key",
      autocomplete: "current-password",
      required: true,
      spellcheck: "false",
    });
    const errorText = element("p", { class: "wrong", role: "alert" });
    const submitButton = element("button", { type: "submit", text: "Log in" });
    const form = element(
      "form",
      { method: "dialog" },
      element("h2", { id: "login-title", text: "This server requires a key" }),
      element(
        "p",
        {},
        "On the server, ",
        element("code", { text: "frames key" }),
        " prints it. Any other key that allows receive works too.",
      ),
      // Password managers store a password under a user name.
      element("input", {
        name: "username",
        autocomplete: "username",
        value: "frames",
        hidden: true,
      }),
      element("label", { for: "key", text: "Key" }),
      input,
      errorText,
      element("div", { class: "buttons" }, submitButton),
    );
    const dialog = openDialog("login", "login-title", form);
    // Login cannot be cancelled, because the page shows nothing without it.
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    return new Promise((resolve) => {
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        submitButton.disabled = true;
        void submitKey(input.value.trim()).then((failure) => {
          submitButton.disabled = false;
          if (failure === undefined) {
            dialog.remove();
            resolve();
          } else {
            setText(errorText, failure);
            input.select();
          }
        });
      });
    });
  }

  /** Copies an address to the clipboard if the browser permits it, and shows it. */
  async showAddress({ title, address, note, example, others = {} }: AddressToShow): Promise<void> {
    let isCopied = true;
    try {
      await navigator.clipboard.writeText(address);
    } catch {
      isCopied = false;
    }
    const field = element("input", { readonly: true, value: address, "aria-label": "Address" });
    const dialog = openDialog(
      "address",
      "address-title",
      element("h2", { id: "address-title", text: title }),
      field,
      element("p", { text: `${isCopied ? "Copied." : "Copy it from here."} ${note}` }),
      element("pre", { text: example }),
      element(
        "div",
        { class: "buttons" },
        ...Object.entries(others).map(([text, show]) =>
          button(text, () => {
            dialog.close();
            show();
          }),
        ),
        button("Close", () => dialog.close()),
      ),
    );
    dialog.addEventListener("close", () => dialog.remove());
    field.select();
  }

  /** Shows an error message. */
  showFailure(text: string): void {
    const dialog = openDialog(
      "failure",
      "failure-title",
      element("h2", { id: "failure-title", text: "The request failed" }),
      element("p", { text }),
      element(
        "div",
        { class: "buttons" },
        button("Close", () => dialog.close()),
      ),
    );
    dialog.addEventListener("close", () => dialog.remove());
  }
}

function openDialog(name: string, titleId: string, ...content: Node[]): HTMLDialogElement {
  const dialog = element("dialog", { class: name, "aria-labelledby": titleId }, ...content);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function createShortcutsDialog(): HTMLDialogElement {
  const list = element("dl", { class: "keys" });
  for (const [key, meaning] of shortcuts) {
    list.append(element("div", {}, element("dt", { text: key }), element("dd", { text: meaning })));
  }
  const dialog = element(
    "dialog",
    { "aria-labelledby": "keys-title" },
    element("h2", { id: "keys-title", text: "Shortcuts" }),
    list,
    element(
      "div",
      { class: "buttons" },
      button("Close", () => dialog.close()),
    ),
  );
  document.body.append(dialog);
  return dialog;
}
