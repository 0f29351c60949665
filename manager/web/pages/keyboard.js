// Text that is not keys: of input methods, of phones' keyboards, of dead keys. It is typed into a field of the page and goes to
// the desktop as it comes out of there. And the layout of the desktop's keyboard, which follows the one here.

import { part } from "./api.js";
import { make } from "./dom.js";
import { ICONS } from "./icons.js";
import { NAMES, guess } from "./layouts.js";
import { group, toggle } from "./panel.js";
import { session } from "./session.js";
import { settings } from "./settings.js";
import { side } from "./side.js";
import { t } from "./text.js";
import { add } from "./toolbar.js";

/** The field is never empty, so that phones have something to delete. */
const FILLING = "  ";

/** The desktop has typed a text within this, in milliseconds; keys that follow it wait so long at most. */
const TYPES = 500;

/** Most bytes that the proxy takes at once. */
const MOST = 16 << 10;

const BACKSPACE = [0xff08, "Backspace"];

const field = make("textarea", {
  class: "composer", "data-testid": "composer", rows: 1, autocapitalize: "off", autocomplete: "off", autocorrect: "off", spellcheck: "false",
  "aria-label": t("What is typed goes to the desktop"), hidden: true,
});
part("stage").append(field);

const canvas = () => part("desktop-screen").querySelector("canvas");

function empty() {
  field.value = FILLING;
  field.setSelectionRange(FILLING.length, FILLING.length);
}

// Text and keys go to the desktop by different ways. So that it gets them as they were typed, keys wait for the text before them.

let typing = 0; // texts on their way
let timer;
const waiting = []; // what comes after them

function settle(texts) {
  typing = Math.max(0, typing - texts);
  if (typing > 0) return;
  clearTimeout(timer);
  while (waiting.length && typing === 0) waiting.shift()();
}

/** Does something when the desktop has typed what is on its way; more text can follow it at once, if nothing else waits. */
function afterText(work, isText = false) {
  if (waiting.length || (typing > 0 && !isText)) waiting.push(work);
  else work();
}

function sendText(bytes) {
  typing += 1;
  clearTimeout(timer);
  timer = setTimeout(() => settle(typing), TYPES);
  side.send({ type: "type" }, bytes);
}

side.addEventListener("typed", ({ detail: { texts } }) => settle(texts));

/** Types text in the desktop. */
export function type(text) {
  afterText(() => typeNow(text), true);
}

function typeNow(text) {
  if (!side.able.text) {
    // without its helper the desktop knows only what is on a keyboard
    for (const character of text) {
      const code = character.codePointAt(0);
      const keysym = character === "\n" ? 0xff0d : code;
      for (const down of [true, false]) session.rfb?.sendKey(keysym, null, down);
    }
    return;
  }
  let piece = "";
  const flush = () => {
    if (piece) sendText(new TextEncoder().encode(piece));
    piece = "";
  };
  for (const character of text) {
    piece += character;
    // a character has at most four bytes
    if (piece.length * 4 > MOST - 8) flush();
  }
  flush();
}

function come() {
  const text = field.value.startsWith(FILLING) ? field.value.slice(FILLING.length) : field.value.trimStart();
  empty();
  if (text) type(text);
}

field.addEventListener("beforeinput", (event) => {
  if (event.isComposing || !event.inputType.startsWith("deleteContent")) return;
  event.preventDefault();
  afterText(() => {
    for (const down of [true, false]) session.rfb?.sendKey(...BACKSPACE, down);
  });
});
field.addEventListener("input", (event) => event.isComposing || come());
field.addEventListener("compositionstart", () => (field.dataset.composing = "true"));
field.addEventListener("compositionend", () => {
  field.dataset.composing = "false";
  // some browsers still change the field after this
  setTimeout(come);
});

// keys that are no text go on to noVNC
const passed = new Set();

function pass(event) {
  event.preventDefault();
  const { key, code, location, repeat, ctrlKey, shiftKey, altKey, metaKey } = event;
  const modifier = (name) => event.getModifierState(name);
  const passedOn = new KeyboardEvent(event.type, {
    key, code, location, repeat, ctrlKey, shiftKey, altKey, metaKey, bubbles: true, cancelable: true,
    modifierCapsLock: modifier("CapsLock"), modifierNumLock: modifier("NumLock"), modifierAltGraph: modifier("AltGraph"),
  });
  afterText(() => canvas()?.dispatchEvent(passedOn));
}

field.addEventListener("keydown", (event) => {
  const composes = event.isComposing || event.keyCode === 229 || ["Process", "Unidentified", "Dead"].includes(event.key);
  const commands = (event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph");
  if (composes || ([...event.key].length === 1 && !commands)) return;
  passed.add(event.code);
  pass(event);
});
field.addEventListener("keyup", (event) => passed.delete(event.code) && pass(event));

function use(on) {
  field.hidden = !on;
  session.keys = on ? field : null;
  if (session.rfb) session.rfb.focusOnClick = !on;
  tool.pressed = on;
  empty();
  session.focus();
}

const screen = part("desktop-screen");
screen.addEventListener("pointerup", () => !field.hidden && session.focus());
session.addEventListener("connect", () => {
  session.rfb.focusOnClick = field.hidden;
  session.focus();
});

// the layout

async function tellLayout() {
  if (!side.able.agent) return;
  side.send({ type: "layout", ...(settings.layout === "auto" ? await guess() : { layout: settings.layout, variant: "" }) });
}
side.addEventListener("able", tellLayout);
settings.on("layout", tellLayout);
// somebody may have switched to another
addEventListener("focus", () => settings.layout === "auto" && tellLayout());

let used = ""; // what the desktop says that it has
let said;

side.addEventListener("layout", ({ detail: { layout, variant } }) => {
  used = [layout, variant].filter(Boolean).join(" ");
  document.body.dataset.layout = used;
  tellUsed();
});
const tellUsed = () => said && (said.textContent = used && t("The desktop's keyboard is now “{name}”.", { name: NAMES[used] ?? used }));

const tool = add({
  name: "text",
  icon: ICONS.text,
  label: t("Typing"),
  order: 22,
  panel(element) {
    const list = make("select", { "data-testid": "layout", "aria-label": t("Keyboard layout") },
      make("option", { value: "auto" }, t("As on this device")), Object.entries(NAMES).map(([name, text]) => make("option", { value: name }, text)));
    list.value = settings.layout;
    list.addEventListener("change", () => (settings.layout = list.value));
    said = make("p", { class: "quiet", "aria-live": "polite" });
    element.append(
      group(t("Typing"), toggle("setting-text", t("Use this device's input method"), !field.hidden, use,
        t("For Chinese and other input methods, dead keys, and a phone's keyboard. Text goes to the desktop as you choose it."))),
      group(t("Keyboard layout"), list, said),
    );
    tellUsed();
  },
});

side.addEventListener("able", () => {
  tool.hidden = !side.may.input;
  if (tool.hidden && !field.hidden) use(false);
});
