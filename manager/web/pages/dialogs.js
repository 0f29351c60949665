// Dialogs: a question, and a form that stays open until its work is done.

import { loggedOut } from "./api.js";
import { make } from "./dom.js";
import { t } from "./text.js";

/** A labelled field: `input` with these attributes, or an element of one's own; `hint` stands below. */
export function field(label, control, hint) {
  const element = control instanceof Element ? control : make("input", { autocomplete: "off", ...control });
  return make("label", {}, label, element, hint && make("span", { class: "quiet" }, hint));
}

/** A choice: `[[value, words], …]`. */
export function choice(options, chosen, attributes = {}) {
  const select = make("select", attributes, ...options.map(([value, words]) => new Option(words, value, false, value === chosen)));
  return select;
}

/** The name of a desktop, a group, … */
export const nameField = (testid, hint = t("Small letters, digits and dashes"), value = "") =>
  field(t("Name"), { name: "name", value, pattern: "[a-z0-9][a-z0-9\\-]*", maxlength: 32, autocapitalize: "none", spellcheck: "false", required: true, "data-testid": testid }, hint);

/**
 * Opens a dialog called `name` (in tests: `NAME-dialog`, `NAME-submit`, …). `work` gets the form's elements when it is submitted;
 * what it throws is shown, else the dialog closes. Without `action` there is only a button to close it.
 */
export function sheet({ name, title, lead, content = [], action, danger, wide, work, close = t("Cancel") }) {
  const id = `${name}-title`;
  const error = make("p", { class: "error", role: "alert", "data-testid": `${name}-error` });
  const submit = action && make("button", { class: danger ? "primary danger" : "primary", "data-testid": `${name}-submit` }, action);
  const cancel = make("button", { type: "button", class: action ? "plain" : "", "data-testid": `${name}-cancel` }, close);
  const form = make("form", { method: "dialog", "data-testid": `${name}-form` },
    make("h2", { id, "data-testid": `${name}-title` }, title),
    lead && make("p", { class: "quiet", "data-testid": `${name}-text` }, lead),
    content, error, make("div", { class: "row" }, cancel, submit));
  const dialog = make("dialog", { class: wide ? "wide" : "", "data-testid": `${name}-dialog`, "aria-labelledby": id }, form);
  cancel.addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!work || submit?.disabled) return;
    error.textContent = "";
    submit.disabled = true;
    submit.setAttribute("aria-busy", "true");
    try {
      await work(form.elements, dialog);
      dialog.close("done");
    } catch (refused) {
      if (!loggedOut(refused)) error.textContent = refused.message;
    } finally {
      submit.disabled = false;
      submit.removeAttribute("aria-busy");
    }
  });
  const opener = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    // what opened it may be in a menu that has closed since
    if (document.activeElement === document.body) opener?.closest("details")?.querySelector("summary")?.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, form, error, submit };
}

/** Asks whether something shall be done. */
export function confirm(title, text, action, danger = true) {
  return new Promise((done) => {
    const { dialog, submit } = sheet({ name: "confirm", title, lead: text, action, danger, work: () => {} });
    submit.dataset.testid = "confirm-ok";
    dialog.addEventListener("close", () => done(dialog.returnValue === "done"));
  });
}

/** Something that can be copied: a link, a key. */
export function copyable(text, testid) {
  const button = make("button", { type: "button", onclick: copy }, t("Copy"));
  const shown = make("input", { readonly: true, value: text, "data-testid": testid, "aria-label": t("To be copied"), onfocus: () => shown.select() });
  async function copy() {
    shown.select();
    await navigator.clipboard?.writeText(text).catch(() => document.execCommand("copy"));
    button.textContent = t("Copied.");
  }
  return make("div", { class: "copyable" }, shown, button);
}
