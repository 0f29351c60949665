// Dialogs: a question, and a form that is worked on.

import { loggedOut, part } from "./api.js";

/** Asks whether something shall be done. */
export function confirm(title, text, action) {
  const dialog = part("confirm-dialog");
  part("confirm-title").textContent = title;
  part("confirm-text").textContent = text;
  part("confirm-ok").textContent = action;
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
