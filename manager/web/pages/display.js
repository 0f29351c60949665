// How the screen lies in the window, in the window's own pixels, and how it is sent.
//
// noVNC scales the screen into its box. So all that is decided here is how large the box is, and which size the
// desktop is asked for: pixels of the screen, not of the page, of which there are `devicePixelRatio` to one.

import { part } from "./api.js";
import { ICONS } from "./icons.js";
import { choice, group, toggle } from "./panel.js";
import { session } from "./session.js";
import { settings } from "./settings.js";
import { side } from "./side.js";
import { LANGUAGES, language, speak, t } from "./text.js";
import { add } from "./toolbar.js";

/** Wishes for a size are at least this far apart, in milliseconds. */
const APART = 100;

/** The machine may take so long to follow, in milliseconds; the proxy says so after three seconds. */
const PATIENCE = 4000;

/** Sides that the proxy can show, in pixels. */
const SIDE = { least: 64, most: 8192 };

/** noVNC's levels, which the proxy understands: of JPEG and video, and of compression. */
const LEVELS = { auto: [6, 2], sharp: [9, 2], thrifty: [2, 6] };

const stage = part("stage");
const box = part("desktop-screen");
let remote = null; // what the machine's screen is: width, height, screen, flags
let wish = null; // what was asked for last: width, height, at, answered
let timer;
let viewOnly = false;

const bounded = (side) => Math.max(SIDE.least, Math.min(Math.floor(side + 1e-3), SIDE.most));

/** The size that fills the window, in the desktop's pixels. */
function wanted() {
  const { width, height } = stage.getBoundingClientRect();
  const share = (devicePixelRatio * 100) / settings.zoom;
  return { width: bounded(width * share), height: bounded(height * share) };
}

/** Gives the box its size in the page. */
function lay() {
  const per = devicePixelRatio;
  let size = { width: "100%", height: "100%" };
  let magnified = 0;
  if (settings.size === "match") {
    const { width, height } = wanted();
    magnified = remote && remote.width === width && remote.height === height ? settings.zoom / 100 : 0;
    const scale = settings.zoom / 100 / per;
    size = { width: `${width * scale}px`, height: `${height * scale}px` };
  } else if (settings.size === "actual" && remote) {
    magnified = 1;
    size = { width: `${remote.width / per}px`, height: `${remote.height / per}px` };
  }
  Object.assign(box.style, size);
  stage.dataset.size = settings.size;
  // whole pixels stay whole, all else is smoothed
  box.dataset.crisp = String(magnified > 0 && Number.isInteger(magnified));
  if (session.rfb) session.rfb.scaleViewport = true;
}

/** Asks for the window's size, unless that is so, was refused, or is being done. */
function ask() {
  clearTimeout(timer);
  if (!session.link || !session.connected || !remote || viewOnly || settings.size !== "match") return;
  const size = wanted();
  if (size.width === remote.width && size.height === remote.height) return;
  const same = wish && wish.width === size.width && wish.height === size.height;
  if (same && wish.answered) return;
  const since = wish ? performance.now() - wish.at : Infinity;
  const wait = wish && !wish.answered ? PATIENCE - since : APART - since;
  if (wait > 0) {
    timer = setTimeout(ask, wait);
    return;
  }
  wish = { ...size, at: performance.now(), answered: false };
  session.link.resize(size.width, size.height, remote.screen, remote.flags);
}

function follow() {
  lay();
  ask();
}

/** The window is of another size, or is what it was again: what was refused before may be possible now. */
function changed() {
  if (wish?.answered) wish = null;
  follow();
}

session.addEventListener("begin", () => {
  [remote, wish] = [null, null];
  session.rfb.scaleViewport = true;
  session.rfb.viewOnly = viewOnly;
  lay();
  level();
  session.link.addEventListener("size", ({ detail }) => {
    // noVNC draws the new size in this very moment
    const [first, answer] = [remote === null, detail.reason === 1];
    const granted = !answer || detail.status === 0;
    if (granted || first) remote = { ...remote, ...detail };
    if (answer && wish) wish.answered = true;
    // a size that somebody else wanted is theirs until this window changes
    queueMicrotask(first || answer ? follow : lay);
  });
});
new ResizeObserver(changed).observe(stage);

function watchPixels() {
  matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => {
    watchPixels();
    changed();
  }, { once: true });
}
watchPixels();

function level() {
  if (!session.rfb) return;
  const [quality, compression] = LEVELS[settings.quality] ?? LEVELS.auto;
  session.rfb.qualityLevel = quality;
  session.rfb.compressionLevel = compression;
}

/** What the screen is and how large it is shown, for the statistics. */
export function shown() {
  if (!remote) return null;
  const canvas = box.querySelector("canvas");
  const scale = canvas ? (canvas.getBoundingClientRect().width * devicePixelRatio) / remote.width : 0;
  return { width: remote.width, height: remote.height, scale };
}

let chosen = false; // to look on only

/** Who may do no more looks on, whatever they chose. */
function look() {
  const on = chosen || !side.may.input;
  if (on === viewOnly) return;
  viewOnly = on;
  if (session.rfb) session.rfb.viewOnly = on;
  part("view-only").hidden = !on;
  if (!on) changed();
}

side.addEventListener("able", look);

for (const name of ["size", "zoom"]) settings.on(name, changed);
settings.on("quality", level);

add({
  name: "display",
  icon: ICONS.display,
  label: t("Display"),
  order: 60,
  panel(panel) {
    panel.append(
      group("",
        choice("size", t("Size"), [
          ["match", t("Match"), t("The desktop takes the size of this window.")],
          ["fit", t("Fit"), t("The desktop keeps its size and is scaled into this window.")],
          ["actual", t("Actual"), t("Pixel by pixel; scroll to see the rest.")],
        ], settings.size, (value) => (settings.size = value)),
        choice("zoom", t("Scale"), [
          ["100", "100%"], ["150", "150%"], ["200", "200%"], ["300", "300%"],
        ], String(settings.zoom), (value) => (settings.zoom = Number(value)))),
      group("",
        choice("quality", t("Quality"), [
          ["auto", t("Auto"), t("As good as the connection bears, exact when it rests.")],
          ["sharp", t("Sharp"), t("The best picture also while it moves; takes more of the connection.")],
          ["thrifty", t("Thrifty"), t("Little is sent while it moves; exact when it rests.")],
        ], settings.quality, (value) => (settings.quality = value))),
      group("",
        side.may.input && toggle("setting-view-only", t("View only"), chosen, (on) => {
          chosen = on;
          look();
        }, t("Keys and pointer stay here")),
        toggle("setting-statistics", t("Statistics"), settings.statistics, (on) => (settings.statistics = on)),
        toggle("setting-pinned", t("Keep the toolbar in view"), settings.pinned, (on) => (settings.pinned = on))),
      group("", choice("language", t("Language"), Object.entries(LANGUAGES), language, speak)),
    );
  },
});
