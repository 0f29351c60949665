// Dialogs: a question, and a form that is worked on.

import { loggedOut } from "./api.js";
import { make } from "./dom.js";
import { t } from "./text.js";

let question;

function build() {
  const part = (tag, name, attributes = {}) => make(tag, { "data-testid": `confirm-${name}`, ...attributes });
  const [title, text, cancel, ok] = [
    part("h2", "title", { id: "confirm-title" }), part("p", "text", { class: "quiet" }),
    part("button", "cancel", { value: "", class: "plain" }), part("button", "ok", { value: "yes", class: "danger primary" }),
  ];
  cancel.textContent = t("Cancel");
  const form = make("form", { method: "dialog" }, title, text, make("div", { class: "row" }, cancel, ok));
  const dialog = make("dialog", { "data-testid": "confirm-dialog", "aria-labelledby": "confirm-title" }, form);
  document.body.append(dialog);
  return { dialog, title, text, ok };
}

/** Asks whether something shall be done. */
export function confirm(title, text, action) {
  question ??= build();
  const { dialog } = question;
  question.title.textContent = title;
  question.text.textContent = text;
  question.ok.textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

/** A dialog with a form that stays open until its work is done. */
export function form(dialog, error, work) {
  const element = dialog.querySelector("form");
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = element.querySelector(".primary");
    error.textContent = "";
    button.disabled = true;
    try {
      await work(element.elements);
      dialog.close();
      element.reset();
    } catch (refused) {
      if (!loggedOut(refused)) error.textContent = refused.message;
    } finally {
      button.disabled = false;
    }
  });
}
