// How somebody likes it in this browser; kept there.

import { keep, kept as find } from "./portal.js";

const KEPT = "yunju.settings";

const USUAL = {
  /** The toolbar stays. */
  pinned: false,
  /** `match`: the desktop takes the window's size. `fit`: it is scaled into it. `actual`: pixel by pixel. */
  size: "match",
  /** Pixels of the screen for one of the desktop's when it matches the window, in percent. */
  zoom: 100,
  /** `auto`, `sharp` or `thrifty`. */
  quality: "auto",
  /** The desktop is heard, and how loud, in percent. */
  sound: true,
  volume: 100,
  /** Of the desktop's keyboard: `auto` for this device's, or a name of xkb's. */
  layout: "auto",
  /** The statistics are shown. */
  statistics: false,
};

function read() {
  try {
    return JSON.parse(find(KEPT)) ?? {};
  } catch {
    return {};
  }
}

const kept = { ...USUAL, ...read() };
const listeners = new Map();

/** Each setting is a property; `on(name, work)` hears of its changes. */
export const settings = {
  on(name, work) {
    listeners.set(name, [...(listeners.get(name) ?? []), work]);
  },
};

for (const name of Object.keys(USUAL)) {
  Object.defineProperty(settings, name, {
    get: () => kept[name],
    set(value) {
      if (kept[name] === value) return;
      kept[name] = value;
      keep(KEPT, JSON.stringify(kept));
      for (const work of listeners.get(name) ?? []) work(value);
    },
  });
}
