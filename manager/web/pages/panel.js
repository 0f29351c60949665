// What panels of the toolbar are made of.

import { drawing, make } from "./dom.js";

/** A part of a panel, under a heading if it needs one. */
export const group = (title, ...content) =>
  make("div", { class: "group", role: title && "group", "aria-label": title || null }, title && make("h3", {}, title), ...content);

/** One of several: `options` is a list of [value, text, what it means]; `name` is known to tests, as are `name-value`. */
export function choice(name, label, options, current, change) {
  const explained = make("p", { class: "quiet", "aria-live": "polite" });
  const explain = (value) => (explained.textContent = options.find(([option]) => option === value)?.[2] ?? "");
  const fields = options.map(([value, text]) => {
    const input = make("input", { type: "radio", name, value, checked: value === current });
    input.addEventListener("change", () => {
      explain(value);
      change(value);
    });
    return make("label", { "data-testid": `${name}-${value}` }, input, make("span", {}, text));
  });
  explain(current);
  return make("fieldset", { class: "choice", "data-testid": name }, make("legend", {}, label), make("div", { class: "options" }, fields), explained);
}

/** On or off. */
export function toggle(name, label, on, change, explained = "") {
  const input = make("input", { type: "checkbox", role: "switch", checked: on, "data-testid": name });
  input.addEventListener("change", () => change(input.checked));
  return make("label", { class: "toggle" }, make("span", {}, label, explained && make("span", { class: "quiet" }, explained)), input);
}

/** Something to be done, with a drawing and what it means. */
export function action(name, icon, label, explained, press) {
  return make("button", { type: "button", class: "action", "data-testid": name, onclick: press }, drawing(...icon),
    make("span", {}, label, explained && make("span", { class: "quiet" }, explained)));
}
