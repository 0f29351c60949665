// Keys that a browser keeps for itself, or that a keyboard lacks.

import { make } from "./dom.js";
import { ICONS } from "./icons.js";
import { group } from "./panel.js";
import { session } from "./session.js";
import { side } from "./side.js";
import { t } from "./text.js";
import { add } from "./toolbar.js";

// keysyms of X11 and codes of W3C's UI Events
const KEYS = {
  Control: [0xffe3, "ControlLeft"], Alt: [0xffe9, "AltLeft"], Shift: [0xffe1, "ShiftLeft"], Super: [0xffeb, "MetaLeft"],
  Escape: [0xff1b, "Escape"], Tab: [0xff09, "Tab"], Enter: [0xff0d, "Enter"], Backspace: [0xff08, "Backspace"], Delete: [0xffff, "Delete"],
  Insert: [0xff63, "Insert"], Print: [0xff61, "PrintScreen"], Home: [0xff50, "Home"], End: [0xff57, "End"], PageUp: [0xff55, "PageUp"],
  PageDown: [0xff56, "PageDown"], Left: [0xff51, "ArrowLeft"], Up: [0xff52, "ArrowUp"], Right: [0xff53, "ArrowRight"], Down: [0xff54, "ArrowDown"],
  L: [0x6c, "KeyL"], T: [0x74, "KeyT"],
};
for (let n = 1; n <= 12; n += 1) KEYS[`F${n}`] = [0xffbd + n, `F${n}`];

const held = new Map(); // names of keys that are held down → their buttons

const send = (name, down) => session.rfb?.sendKey(...KEYS[name], down);

/** Presses keys one after the other and lets them go the other way round. */
export function press(...names) {
  for (const name of names) send(name, true);
  for (const name of names.reverse()) send(name, false);
}

function hold(name, on) {
  const button = held.get(name);
  if (on === (button.getAttribute("aria-pressed") === "true")) return;
  button.setAttribute("aria-pressed", String(on));
  send(name, on);
}

// a connection that ends lets all keys go
session.addEventListener("disconnect", () => {
  for (const button of held.values()) button.setAttribute("aria-pressed", "false");
});

const key = (label, names, title = label) =>
  make("button", { type: "button", class: "key", "data-testid": `key-${names.join("-").toLowerCase()}`, title, "aria-label": title, onclick: () => press(...names) }, label);

function sticky(name, label) {
  const button = make("button", { type: "button", class: "key", "data-testid": `hold-${name.toLowerCase()}`, "aria-pressed": "false" }, label);
  button.addEventListener("click", () => hold(name, button.getAttribute("aria-pressed") !== "true"));
  held.set(name, button);
  return button;
}

const keys = (...buttons) => make("div", { class: "keys" }, buttons);

const tool = add({
  name: "keys",
  icon: ICONS.keyboard,
  label: t("Keys"),
  title: t("Send keys"),
  order: 20,
  panel(panel) {
    panel.append(
      group(t("Combinations"), keys(
        key("Ctrl + Alt + Del", ["Control", "Alt", "Delete"]), key("Alt + Tab", ["Alt", "Tab"]), key("Alt + F4", ["Alt", "F4"]),
        key("Super + L", ["Super", "L"]), key("Ctrl + Alt + T", ["Control", "Alt", "T"]))),
      group(t("Hold down"), keys(sticky("Control", "Ctrl"), sticky("Alt", "Alt"), sticky("Shift", "Shift"), sticky("Super", "Super"))),
      group(t("Keys"), keys(
        key("Super", ["Super"]), key("Esc", ["Escape"]), key("Tab", ["Tab"]), key("Enter", ["Enter"]), key("⌫", ["Backspace"], t("Backspace")),
        key("Del", ["Delete"]), key("Ins", ["Insert"]), key("PrtSc", ["Print"]), key("Home", ["Home"]), key("End", ["End"]), key("PgUp", ["PageUp"]), key("PgDn", ["PageDown"]),
        key("←", ["Left"], t("Left")), key("↑", ["Up"], t("Up")), key("↓", ["Down"], t("Down")), key("→", ["Right"], t("Right")))),
      group(t("Function keys"), keys(...Array.from({ length: 12 }, (_, n) => key(`F${n + 1}`, [`F${n + 1}`])))),
    );
  },
});

const usable = () => (tool.disabled = !session.connected);
side.addEventListener("able", () => (tool.hidden = !side.may.input));
session.addEventListener("state", usable);
usable();
