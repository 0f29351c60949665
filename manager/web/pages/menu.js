// Menus that open from a button: `<details>`, closed by Escape, by choosing, and by doing something else.

import { drawing, make } from "./dom.js";
import { ICONS } from "./icons.js";

/** A menu of `items`; `label` says what it is for. */
export function menu({ label, testid, face, items, above = false }) {
  const summary = make("summary", { class: "button plain", "data-testid": testid, "aria-label": face ? "" : label, title: face ? "" : label }, face ?? drawing(...ICONS.more));
  return make("details", { class: above ? "menu above" : "menu" }, summary, make("div", { class: "items" }, items));
}

/** One choice in a menu. */
export function item(text, testid, work, { danger = false, more = null } = {}) {
  return make("button", { type: "button", class: danger ? "danger" : "", "data-testid": testid, onclick: work }, make("span", {}, text), more);
}

const open = () => document.querySelectorAll("details.menu[open]");

function shut(details, back) {
  details.removeAttribute("open");
  if (back) details.querySelector("summary").focus();
}

document.addEventListener("click", ({ target }) => {
  for (const details of open()) {
    if (!details.contains(target)) shut(details, false);
    else if (target.closest(".items button, .items a") && !target.closest("[data-stays]")) shut(details, details.contains(document.activeElement));
  }
}, { capture: true });

document.addEventListener("keydown", (event) => {
  const [details] = open();
  if (!details || !details.contains(document.activeElement)) return;
  if (event.key === "Escape") shut(details, true);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const choices = [...details.querySelectorAll(".items button, .items a")].filter((element) => element.checkVisibility());
  const at = choices.indexOf(document.activeElement);
  choices.at((at + step + (at < 0 && step < 0 ? 1 : 0)) % choices.length)?.focus();
});
