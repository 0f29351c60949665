// What RFB has no words for: a pointer that only tells its steps, while the page has locked it, and a wheel that turns by less
// than a click.

import { part } from "./api.js";
import { ICONS } from "./icons.js";
import { session } from "./session.js";
import { side } from "./side.js";
import { t } from "./text.js";
import { add } from "./toolbar.js";

/** Pixels, or lines, that a wheel's click scrolls in browsers; a click has 120 units. */
const CLICK = [100, 3, 1];
const UNITS = 120;

/** The protocol's numbers have 16 bits. */
const bounded = (steps) => Math.max(-32768, Math.min(Math.trunc(steps), 32767));

const screen = part("desktop-screen");
const canvas = () => screen.querySelector("canvas");

/** Adds up what happens until the browser draws again, and keeps what makes no whole step. */
function gather(tell) {
  const sum = { x: 0, y: 0 };
  let planned = false;
  const flush = () => {
    planned = false;
    const [x, y] = [bounded(sum.x), bounded(sum.y)];
    sum.x -= x;
    sum.y -= y;
    if (x || y) tell(x, y);
  };
  return {
    add(x, y) {
      sum.x += x;
      sum.y += y;
      if (!planned) requestAnimationFrame(flush);
      planned = true;
    },
    flush,
  };
}

// the wheel

const wheel = gather((x, y) => side.send({ type: "scroll", x, y }));

screen.addEventListener("wheel", (event) => {
  // without a way beside the screen noVNC does it, click by click
  if (!side.open || !session.connected) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const units = UNITS / CLICK[event.deltaMode];
  wheel.add(event.deltaX * units, -event.deltaY * units);
}, { capture: true, passive: false });

// the locked pointer

let buttons = 0;
const steps = gather((x, y) => side.send({ type: "move", x, y, buttons }));
const locked = () => document.pointerLockElement !== null && document.pointerLockElement === canvas();

/** The protocol's bits: left, middle, right, back, forward. */
const bits = (held) => (held & 1) | ((held & 4) >> 1) | ((held & 2) << 1) | (held & 0x18);

function onPointer(event) {
  if (!locked()) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const scale = canvas().width / canvas().getBoundingClientRect().width;
  if (event.type === "mousemove") return steps.add(event.movementX * scale, event.movementY * scale);
  steps.flush();
  buttons = bits(event.buttons);
  side.send({ type: "move", x: 0, y: 0, buttons });
}
for (const type of ["mousemove", "mousedown", "mouseup"]) addEventListener(type, onPointer, true);

async function lock() {
  if (locked()) return document.exitPointerLock();
  try {
    await canvas()?.requestPointerLock({ unadjustedMovement: true });
  } catch {
    // not every system has a pointer without acceleration
    await canvas()?.requestPointerLock();
  }
}

document.addEventListener("pointerlockchange", () => {
  tool.pressed = locked();
  if (!locked() && buttons) side.send({ type: "move", x: 0, y: 0, buttons: (buttons = 0) });
});

const tool = add({
  name: "pointer",
  icon: ICONS.pointer,
  label: t("Lock the pointer"),
  title: t("Lock the pointer, for games; Escape lets it go"),
  order: 24,
  press: () => lock().catch(() => {}),
});
tool.pressed = false;
const offer = () => (tool.hidden = !side.may.input || (!side.able.agent && !side.open));
side.addEventListener("able", offer);
offer();
