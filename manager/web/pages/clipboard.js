// One clipboard for this device and the desktop, as far as the browser lets it: what is copied in the desktop is put here
// at once, and Ctrl+V in the desktop first takes along what is here. Where the browser does not, there is the panel.

import { part } from "./api.js";
import { make } from "./dom.js";
import { ICONS } from "./icons.js";
import { group } from "./panel.js";
import { session } from "./session.js";
import { side } from "./side.js";
import { t } from "./text.js";
import { add } from "./toolbar.js";

/** Most bytes that the proxy takes. */
const MOST = { text: 1 << 20, png: 8 << 20 };

/** The browser says what it pastes within this, in milliseconds. */
const PASTES = 80;

/** The guest has taken what it is to paste within this, in milliseconds; else it pastes what it has. */
const TAKES = 700;

const KEYS = { Control: [0xffe3, "ControlLeft"], Shift: [0xffe1, "ShiftLeft"], v: [0x76, "KeyV"] };

let here = null; // the text that both sides are known to have
let copied = null; // what was copied in the desktop last: { kind, text, blob }
const panel = {};

const encode = (text) => new TextEncoder().encode(text);

/** Puts something into the desktop's clipboard; resolves when it is there, or will not be soon. */
async function give(kind, bytes) {
  if (!side.able.to_guest || !bytes.length) return;
  if (bytes.length > MOST[kind]) return explain(t("It is too large: text may have 1 MiB, a picture 8 MiB."));
  const taken = new Promise((done) => {
    side.addEventListener("taken", done, { once: true });
    setTimeout(done, TAKES);
  });
  side.send({ type: "clip", kind }, bytes);
  await taken;
}

/** Gives text, unless the desktop has it already. */
async function giveText(text) {
  const lines = text.replaceAll("\r\n", "\n");
  if (lines === here) return;
  if (side.able.to_guest) here = lines;
  await give("text", encode(lines));
}

async function givePicture(blob) {
  here = null;
  await give("png", new Uint8Array(await blob.arrayBuffer()));
}

/** Any picture as PNG. */
async function png(blob) {
  if (blob.type === "image/png") return blob;
  const picture = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

/** Gives what a `paste` event brings. */
async function giveTransfer(data) {
  const text = data?.getData("text/plain");
  const picture = [...(data?.items ?? [])].find(({ type }) => type.startsWith("image/"))?.getAsFile();
  if (text) await giveText(text);
  else if (picture) await givePicture(await png(picture));
}

/** Gives what this device's clipboard holds; the browser may ask whether it may be read. */
async function giveThis() {
  const [item] = await navigator.clipboard.read();
  const type = item?.types.find((name) => name === "text/plain") ?? item?.types.find((name) => name.startsWith("image/"));
  if (!type) return;
  const blob = await item.getType(type);
  if (type === "text/plain") await giveText(await blob.text());
  else await givePicture(await png(blob));
}

/** Puts what was copied in the desktop into this device's clipboard; whether the browser let it. */
async function takeCopied() {
  if (!copied || !navigator.clipboard) return false;
  try {
    if (copied.kind === "text") await navigator.clipboard.writeText(copied.text);
    else await navigator.clipboard.write([new ClipboardItem({ "image/png": copied.blob })]);
    tool.badge = "";
    return true;
  } catch {
    return false;
  }
}

side.addEventListener("clip", async ({ detail: { kind, bytes, old } }) => {
  copied = kind === "text" ? { kind, text: new TextDecoder().decode(bytes) } : { kind, blob: new Blob([bytes], { type: "image/png" }) };
  show();
  if (old) return;
  here = copied.kind === "text" ? copied.text : null;
  if (!(await takeCopied())) tool.badge = "1";
});

// Ctrl+V goes to the browser first, which says what it would paste; when the desktop has that, it gets the keys.

let waiting = null; // ends the wait for the browser
const down = new Set();

function press(names) {
  const missing = names.filter((name) => !down.has(name));
  for (const name of missing) session.rfb?.sendKey(...KEYS[name], true);
  session.rfb?.sendKey(...KEYS.v, true);
  session.rfb?.sendKey(...KEYS.v, false);
  for (const name of missing.reverse()) session.rfb?.sendKey(...KEYS[name], false);
}

const screen = part("desktop-screen");
addEventListener("keydown", ({ key }) => down.add(key), true);
addEventListener("keyup", ({ key }) => down.delete(key), true);
addEventListener("blur", () => down.clear());

screen.addEventListener("keydown", (event) => {
  const pastes = event.code === "KeyV" && event.ctrlKey && !event.altKey && !event.metaKey;
  if (!pastes || !side.able.to_guest || !side.open) return;
  event.stopImmediatePropagation();
  if (event.repeat) return event.preventDefault();
  const names = event.shiftKey ? ["Control", "Shift"] : ["Control"];
  const browser = new Promise((done) => {
    waiting = done;
    setTimeout(done, PASTES);
  });
  browser.then(async (data) => {
    waiting = null;
    await giveTransfer(data).catch(() => {});
    press(names);
  });
}, true);
screen.addEventListener("keyup", (event) => event.code === "KeyV" && event.ctrlKey && event.stopImmediatePropagation(), true);

addEventListener("paste", (event) => {
  if (!waiting) return;
  event.preventDefault();
  waiting(event.clipboardData);
});

// Where it was allowed to read the clipboard, it is read whenever somebody comes to the desktop.
async function come() {
  if (!side.able.to_guest || !side.open || !document.hasFocus()) return;
  try {
    const { state } = await navigator.permissions.query({ name: "clipboard-read" });
    if (state === "granted") await giveThis();
  } catch {
    // a browser without such a permission reads only when it is told to
  }
}
addEventListener("focus", come);
screen.addEventListener("pointerenter", come);
side.addEventListener("able", () => {
  here = null;
  show();
  come();
});

// the panel

function explain(text) {
  if (panel.said) panel.said.textContent = text;
}

function show() {
  const { agent, to_guest: to, from_guest: from } = side.able;
  if (!panel.text) return;
  const state = agent ? (to && from ? "" : to ? t("What is copied in the desktop stays there.") : from ? t("Nothing can be pasted into the desktop.") : t("The clipboard is switched off."))
    : t("The desktop's helper is not there, so the clipboard stays on each side.");
  explain(state);
  panel.give.disabled = !to;
  panel.fetch.disabled = !to || !navigator.clipboard?.read;
  panel.copy.disabled = !copied;
  panel.picture.hidden = copied?.kind !== "png";
  if (copied?.kind === "png") {
    URL.revokeObjectURL(panel.picture.src);
    panel.picture.src = URL.createObjectURL(copied.blob);
  } else if (copied) {
    panel.text.value = copied.text;
  }
}

/** Does what a button stands for, and says so. */
const button = (name, text, done, work) => make("button", {
  type: "button", "data-testid": `clipboard-${name}`,
  async onclick() {
    try {
      await work();
      explain(done);
    } catch {
      explain(t("The browser does not allow it."));
    }
  },
}, text);

const tool = add({
  name: "clipboard",
  icon: ICONS.clipboard,
  label: t("Clipboard"),
  order: 30,
  panel(element) {
    panel.text = make("textarea", { rows: 5, class: "clip", "data-testid": "clipboard-text", spellcheck: "false", "aria-label": t("Text in the clipboard") });
    panel.picture = make("img", { class: "clip", "data-testid": "clipboard-picture", alt: t("Picture in the clipboard"), hidden: true });
    panel.said = make("p", { class: "quiet", "data-testid": "clipboard-said", "aria-live": "polite" });
    panel.give = button("give", t("To the desktop"), t("The desktop has it: paste it there."), () => giveText(panel.text.value));
    panel.fetch = button("fetch", t("Send this device's clipboard"), t("The desktop has it: paste it there."), giveThis);
    panel.copy = button("copy", t("Copy to this device"), t("It is in this device's clipboard."), async () => {
      if (!(await takeCopied())) throw new Error("not allowed");
    });
    element.append(group(t("Clipboard"), panel.text, panel.picture, make("div", { class: "keys" }, panel.give, panel.copy, panel.fetch), panel.said));
    show();
  },
});

side.addEventListener("able", () => (tool.hidden = !side.may.clipboard));
