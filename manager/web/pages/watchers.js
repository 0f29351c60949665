// Who looks at one's desktops: asked for once, then told by events.

import { desktop as path, get } from "./api.js";
import { make } from "./dom.js";
import { me } from "./me.js";
import { t } from "./text.js";

const known = new Map(); // desktop's id → names
let there = true; // until the service says that it does not know

const others = (names) => [...new Set(names.filter((name) => name !== me.name))];

/** What is known now. */
export const watchers = (id) => others(known.get(id) ?? []);

export function told(id, names) {
  known.set(id, names);
}

/** Asks, if that is worth it. */
export async function ask({ id, state }) {
  if (!there || state !== "running") return;
  const names = await get(path(id, "/viewers")).catch((error) => {
    if (error.status === 404) there = false;
    return [];
  });
  told(id, names.map(({ name }) => name));
}

/** In words, for a card. */
export function said(id) {
  const names = watchers(id);
  if (names.length === 0) return null;
  const words = names.length <= 2 ? t("{names} is looking", { names: names.join(", ") }) : t("{count} people are looking", { count: names.length });
  return make("span", { class: "chip watchers", title: names.join(", ") }, words);
}
