// Who else looks at this desktop: their pointers with their names, and who types. The proxy tells of them by `side`; where the pointer
// is here, it is told while somebody is there to see it.

import { part } from "./api.js";
import { make } from "./dom.js";
import { session } from "./session.js";
import { side } from "./side.js";
import { t } from "./text.js";

/** Between two words of where the pointer is, in milliseconds. */
const APART = 50;

/** Somebody types until so long after their last key, in milliseconds. */
const TYPES = 1500;

/** A pointer that rests so long, in milliseconds, is hidden, so that it hides nothing. */
const RESTS = 6000;

/** There are so many colours for them in desktop.css. */
const COLOURS = 8;

const SVG = "http://www.w3.org/2000/svg";

const screen = part("desktop-screen");
const layer = part("people");
const others = new Map(); // ids → { element, label, is, timer }

const called = (name) => name || t("Somebody");

function arrow() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.append(document.createElementNS(SVG, "path"));
  svg.firstChild.setAttribute("d", "M3 2l5.2 15 2.3-6.5L17 8.2z");
  return svg;
}

/** Puts a pointer where it is of the picture. */
function place({ element, is }) {
  const canvas = screen.querySelector("canvas");
  if (!is.at || !canvas?.width) return;
  const [box, within] = [canvas.getBoundingClientRect(), layer.getBoundingClientRect()];
  const [x, y] = is.at;
  const left = box.left - within.left + ((x + 0.5) * box.width) / canvas.width;
  const top = box.top - within.top + ((y + 0.5) * box.height) / canvas.height;
  element.style.translate = `${left}px ${top}px`;
}

function placeAll() {
  for (const other of others.values()) place(other);
}

side.addEventListener("person", ({ detail: { id, name } }) => {
  const label = make("bdi", { class: "label" }, called(name));
  const element = make("div", { class: "person", "data-testid": "person", "data-name": name, "data-colour": id % COLOURS, "data-here": "false", "data-types": "false" }, arrow(), label);
  others.set(id, { element, is: { at: null, types: false } });
  layer.append(element);
  tell();
  count();
});

side.addEventListener("there", ({ detail: { id, is } }) => {
  const other = others.get(id);
  if (!other) return;
  other.is = is;
  other.element.dataset.here = String(is.at !== null);
  other.element.dataset.types = String(is.types);
  place(other);
  clearTimeout(other.timer);
  if (!is.types) other.timer = setTimeout(() => (other.element.dataset.here = "false"), RESTS);
  count();
});

function forget(id) {
  clearTimeout(others.get(id)?.timer);
  others.get(id)?.element.remove();
  others.delete(id);
  count();
}
side.addEventListener("gone", ({ detail: { id } }) => forget(id));
session.addEventListener("disconnect", () => [...others.keys()].forEach(forget));

/** Says in the toolbar who is there, or who types. */
function count() {
  const chip = part("people-said");
  const names = [...others.values()].map(({ element }) => called(element.dataset.name));
  const typing = [...others.values()].find(({ is }) => is.types);
  chip.hidden = names.length === 0;
  chip.title = names.join(", ");
  chip.textContent = typing ? t("{name} types", { name: called(typing.element.dataset.name) }) : names.length === 1 ? t("with {name}", { name: names[0] }) : t("with {count} others", { count: names.length });
}

// where this person is

const here = { at: null, types: false };
let told = "";
let next = null;
let typed;

/** Tells where this person is, if it is something new and somebody is there to see it. */
function tell() {
  if (next !== null || others.size === 0) return;
  const now = JSON.stringify(here);
  if (now === told) return;
  told = now;
  side.send({ type: "here", ...here });
  next = setTimeout(() => {
    next = null;
    tell();
  }, APART);
}

function onMove({ clientX, clientY }) {
  const canvas = screen.querySelector("canvas");
  if (!canvas?.width || document.pointerLockElement) return;
  const box = canvas.getBoundingClientRect();
  const [x, y] = [((clientX - box.left) * canvas.width) / box.width, ((clientY - box.top) * canvas.height) / box.height].map(Math.floor);
  here.at = x >= 0 && y >= 0 && x < canvas.width && y < canvas.height ? [x, y] : null;
  tell();
}

function onKey() {
  if (session.rfb?.viewOnly) return;
  here.types = true;
  clearTimeout(typed);
  typed = setTimeout(() => {
    here.types = false;
    tell();
  }, TYPES);
  tell();
}

for (const type of ["pointermove", "pointerdown"]) screen.addEventListener(type, onMove, { capture: true, passive: true });
screen.addEventListener("pointerleave", () => {
  here.at = null;
  tell();
});
// keys come to the screen, or to the field for text beside it
part("stage").addEventListener("keydown", onKey, { capture: true, passive: true });
session.addEventListener("connect", () => (told = ""));
new ResizeObserver(placeAll).observe(screen);
session.addEventListener("picture", placeAll);
