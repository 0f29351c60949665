// Light or dark: as the device likes it, or as somebody chose for this browser. Set before a page is drawn.

import { keep, kept as find } from "./portal.js";

const KEPT = "yunju.theme";

export const THEMES = ["auto", "light", "dark"];

export function theme() {
  const kept = find(KEPT);
  return THEMES.includes(kept) ? kept : "auto";
}

/** All pages look like this from now on; those that are open elsewhere too. */
export function dress(name) {
  keep(KEPT, name);
  apply();
}

function apply() {
  document.documentElement.dataset.theme = theme();
}

window.addEventListener("storage", ({ key }) => key === KEPT && apply());
apply();
