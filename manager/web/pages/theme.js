// Light or dark: as the device likes it, or as somebody chose for this browser. Set before a page is drawn.

const KEPT = "yunju.theme";

export const THEMES = ["auto", "light", "dark"];

export function theme() {
  let kept;
  try {
    kept = localStorage.getItem(KEPT);
  } catch {
    // a frame may not remember: as the device likes it
  }
  return THEMES.includes(kept) ? kept : "auto";
}

/** All pages look like this from now on; those that are open elsewhere too. */
export function dress(name) {
  localStorage.setItem(KEPT, name);
  apply();
}

function apply() {
  document.documentElement.dataset.theme = theme();
}

window.addEventListener("storage", ({ key }) => key === KEPT && apply());
apply();
