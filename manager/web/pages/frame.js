// The portal's page of a desktop: a frame with the desktop's own page in it, on a host name of its own, which cannot reach anything
// here. What it may ask for, in messages: to be opened anew, to go home, to have settings kept. At `#tab` it is shown without a frame.

import { Refused, desktop as path, loggedOut, part, post } from "./api.js";
import { t } from "./text.js";
import { KEPT } from "./portal.js";

const reference = decodeURIComponent(location.pathname.split("/")[2] ?? "");

/** What the desktop's page may ask the browser for. */
const LENT = ["autoplay", "clipboard-read", "clipboard-write", "fullscreen", "gamepad", "keyboard-map", "microphone"];

/** Nothing of the window around it: not where that goes, not what opened it. */
const SANDBOX = ["allow-scripts", "allow-same-origin", "allow-downloads", "allow-pointer-lock", "allow-modals"];

/** What a desktop may have kept has at most so many letters. */
const MOST_KEPT = 4096;

/** It is opened anew by itself at most so often, in milliseconds. */
const APART = 5000;

let frame = null;
let origin = null;
let opened = -Infinity;

function say(title, text) {
  frame?.remove();
  frame = null;
  part("frame-title").textContent = title;
  part("frame-text").textContent = text;
  part("frame-said").hidden = false;
}

/** The way in, for once, with what the browser keeps for all desktops. */
async function door() {
  const { url, ticket, desktop } = await post(path(reference, "/open"));
  document.title = `${desktop} · Yunju`;
  const kept = Object.fromEntries(KEPT.map((name) => [name, localStorage.getItem(name)]).filter(([, value]) => value !== null));
  const address = new URL(url);
  address.hash = encodeURIComponent(JSON.stringify({ ticket, kept }));
  return address;
}

async function open() {
  opened = performance.now();
  try {
    const address = await door();
    if (location.hash === "#tab") return location.replace(address);
    origin = address.origin;
    const fresh = document.createElement("iframe");
    fresh.dataset.testid = "frame";
    fresh.title = reference;
    fresh.sandbox.add(...SANDBOX);
    fresh.allow = LENT.map((feature) => `${feature} ${origin}`).join("; ");
    fresh.src = address;
    fresh.addEventListener("load", () => fresh.focus());
    part("frame-said").hidden = true;
    frame?.remove();
    frame = fresh;
    document.body.append(frame);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (loggedOut(error)) return;
    say(error.status === 404 ? t("No such desktop") : t("It does not open"), error.message);
  }
}

function keep(kept) {
  for (const name of KEPT) {
    const value = kept?.[name];
    if (typeof value === "string" && value.length <= MOST_KEPT) localStorage.setItem(name, value);
  }
}

addEventListener("message", ({ source, origin: from, data }) => {
  if (!frame || source !== frame.contentWindow || from !== origin) return;
  if (data?.type === "home") location.assign("/");
  if (data?.type === "keep") keep(data.kept);
  if (data?.type === "closed") {
    if (performance.now() - opened > APART) open();
    else say(t("It does not open"), t("The browser does not keep what shows that it may: allow cookies of this service, or open the desktop in a tab of its own."));
  }
});

await open();
