// The toolbar: a row of buttons that keeps out of the way. Each part of the page adds its own:
//
//     const sound = add({ name: "sound", icon: ICONS.sound, label: t("Sound"), order: 40, press: () => … });
//     const files = add({ name: "files", icon: ICONS.files, label: t("Files"), order: 50, panel: (element) => element.append(…) });
//     sound.pressed = true;  files.hidden = false;  files.badge = "3";  files.open();
//
// It is there while there is no screen, while something of it is open or has the keyboard, and for a moment after the
// pointer left it. While somebody works a small handle stays. Ctrl+Alt+Shift brings it up from the desktop.

import { part } from "./api.js";
import { drawing, make } from "./dom.js";
import { settings } from "./settings.js";
import { t } from "./text.js";

/** It hides after this, in milliseconds, unless it is in use. */
const LINGERS = 2500;

const bar = part("toolbar");
const row = part("tools");
const handle = part("toolbar-handle");
let opened = null;
let giveBack = () => {};
let working = false;
let timer;

class Tool {
  #button;
  #label;
  #badge;
  #panel = null;
  #fill;

  constructor({ name, icon, label, title = label, order = 50, press, panel }) {
    Object.assign(this, { name, order });
    this.#fill = panel;
    this.#label = make("span", { class: "label" }, label);
    this.#badge = make("span", { class: "badge", hidden: true });
    this.#button = make("button", { type: "button", class: "tool", "data-testid": `toolbar-${name}`, title, "aria-label": label, tabindex: -1 }, drawing(...icon), this.#label, this.#badge);
    if (panel) {
      this.#button.setAttribute("aria-haspopup", "dialog");
      this.#button.setAttribute("aria-expanded", "false");
    }
    this.#button.addEventListener("click", (event) => {
      if (panel) {
        if (opened === this) this.close();
        else this.open(event.detail === 0);
        return;
      }
      press(this, event);
      // who came by the pointer goes on in the desktop, who came by the keyboard stays
      if (event.detail > 0) giveBack();
    });
  }

  get element() {
    return this.#button;
  }

  /** Whether what the button stands for is on; null if it is not such a button. */
  set pressed(on) {
    if (on === null) this.#button.removeAttribute("aria-pressed");
    else this.#button.setAttribute("aria-pressed", String(on));
  }

  get pressed() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  set hidden(on) {
    this.#button.hidden = on;
    rove();
  }

  set disabled(on) {
    this.#button.disabled = on;
    if (on) this.close();
    rove();
  }

  set label(text) {
    this.#label.textContent = text;
    this.#button.title = text;
    this.#button.setAttribute("aria-label", text);
  }

  set icon(paths) {
    this.#button.querySelector("svg").replaceWith(drawing(...paths));
  }

  /** A few letters at the button's corner; none if empty. */
  set badge(text) {
    this.#badge.textContent = text;
    this.#badge.hidden = text === "";
  }

  get isOpen() {
    return opened === this;
  }

  /** Opens the button's panel, which is made when it is first needed. */
  open(byKeyboard = false) {
    if (!this.#fill) return;
    opened?.close();
    if (!this.#panel) {
      this.#panel = make("section", { class: "panel", role: "dialog", "data-testid": `panel-${this.name}`, "aria-label": this.#button.getAttribute("aria-label"), tabindex: -1 });
      bar.append(this.#panel);
      this.#fill(this.#panel, this);
    }
    opened = this;
    this.#panel.hidden = false;
    this.#panel.dispatchEvent(new CustomEvent("open"));
    this.#button.setAttribute("aria-expanded", "true");
    this.place();
    show();
    const first = this.#panel.querySelector("button:not(:disabled), input, select, textarea");
    (byKeyboard ? first ?? this.#panel : this.#panel).focus();
  }

  /** Puts the panel below its button, within the window. */
  place() {
    const [button, panel] = [this.#button.getBoundingClientRect(), this.#panel.getBoundingClientRect()];
    const left = button.left + button.width / 2 - panel.width / 2;
    this.#panel.style.left = `${Math.max(8, Math.min(left, innerWidth - panel.width - 8))}px`;
    this.#panel.style.top = `${row.getBoundingClientRect().bottom + 8}px`;
  }

  close(back = false) {
    if (opened !== this) return;
    opened = null;
    this.#panel.hidden = true;
    this.#button.setAttribute("aria-expanded", "false");
    if (back) this.#button.focus();
    linger();
  }
}

const tools = [];

/** Adds a button; those with a smaller `order` stand more to the left. */
export function add(options) {
  const tool = new Tool(options);
  const place = tools.findIndex(({ order }) => order > tool.order);
  if (place < 0) row.append(tool.element);
  else row.insertBefore(tool.element, tools[place].element);
  tools.splice(place < 0 ? tools.length : place, 0, tool);
  rove();
  return tool;
}

/** What gets the keyboard when the toolbar does not need it any more. */
export function onGiveBack(work) {
  giveBack = () => {
    opened?.close();
    if (bar.contains(document.activeElement)) document.activeElement.blur();
    work();
    linger();
  };
}

/** Closes what is open and lets the desktop have the keyboard. */
export const leave = () => giveBack();

/** Brings the toolbar up with the keyboard in it. */
export function enter() {
  show();
  (stops().find(({ tabIndex }) => tabIndex === 0) ?? stops()[0])?.focus();
}

/** Whether there is a screen to work on: if not, the toolbar stays. */
export function work(on) {
  working = on;
  if (on) linger();
  else show();
}

const stops = () => [...row.querySelectorAll("a, button")].filter((stop) => !stop.hidden && !stop.disabled);

/** One stop for the tabulator; the arrow keys go from button to button. */
function rove(to) {
  const all = stops();
  const current = to ?? all.find(({ tabIndex }) => tabIndex === 0) ?? all[0];
  for (const stop of row.querySelectorAll("a, button")) stop.tabIndex = stop === current ? 0 : -1;
}

const busy = () => !working || settings.pinned || opened !== null || bar.matches(":hover") || handle.matches(":hover") || bar.contains(document.activeElement);

function show() {
  clearTimeout(timer);
  bar.dataset.quiet = "false";
  handle.setAttribute("aria-expanded", "true");
}

function hide() {
  clearTimeout(timer);
  if (busy()) return;
  bar.dataset.quiet = "true";
  handle.setAttribute("aria-expanded", "false");
}

function linger() {
  clearTimeout(timer);
  timer = setTimeout(hide, LINGERS);
}

row.addEventListener("focusin", ({ target }) => rove(target.closest("a, button")));
row.addEventListener("keydown", (event) => {
  const all = stops();
  const at = all.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  all.at(to % all.length).focus();
});
bar.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.preventDefault();
  if (opened) opened.close(true);
  else giveBack();
});
bar.addEventListener("focusin", show);
bar.addEventListener("focusout", linger);
bar.addEventListener("pointerenter", show);
bar.addEventListener("pointerleave", linger);
handle.addEventListener("pointerenter", ({ pointerType }) => pointerType === "mouse" && show());
handle.addEventListener("pointerleave", linger);
handle.addEventListener("click", ({ detail }) => {
  if (detail === 0) enter();
  else show();
  if (detail > 0) linger();
});

/** Somebody works in the desktop: what is open closes, and the toolbar goes soon. */
export function away() {
  opened?.close();
  if (bar.dataset.quiet !== "true") linger();
}

addEventListener("resize", () => opened?.place());
settings.on("pinned", (on) => {
  document.body.dataset.pinned = on;
  if (on) show();
  else linger();
});
document.body.dataset.pinned = settings.pinned;

// Ctrl+Alt+Shift, and nothing else, let go: only then, so that the desktop does not believe them to be held for ever.
const CHORD = ["Control", "Alt", "Shift"];
let chord = false;
addEventListener("keydown", (event) => {
  const all = event.ctrlKey && event.altKey && event.shiftKey;
  chord = CHORD.includes(event.key) && (chord || all);
}, true);
addEventListener("keyup", (event) => {
  if (!chord || event.ctrlKey || event.altKey || event.shiftKey) return;
  chord = false;
  if (bar.contains(document.activeElement)) giveBack();
  else enter();
}, true);
addEventListener("blur", () => (chord = false));

handle.title = t("Toolbar (Ctrl+Alt+Shift)");
