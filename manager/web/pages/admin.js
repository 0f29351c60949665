// What the pages of administration are made of: a table with a search and pages.

import { list } from "./api.js";
import { make } from "./dom.js";
import { notice } from "./notices.js";
import { t } from "./text.js";

/**
 * A table that is filled from a list of the service, page by page. `columns` are `{ title, cell(entry), wide }`; `filters` are
 * elements of a form whose named values go into the query, as `translate` puts it. Hands back `{ element, load }`.
 */
export function table({ name, path, query = {}, columns, filters = [], none, limit = 50, translate = (query) => query, signal }) {
  const head = make("tr", {}, columns.map(({ title, quiet }) => make("th", { scope: "col" }, quiet ? make("span", { class: "unseen" }, title) : title)));
  const body = make("tbody", { "data-testid": `${name}-rows` });
  const more = make("button", { type: "button", class: "more", hidden: true, "data-testid": `${name}-next`, onclick: () => page(next).catch(notice) }, t("Show more"));
  const nothing = make("p", { class: "quiet nothing", role: "status", hidden: true, "data-testid": `${name}-none` }, none);
  const form = make("form", { class: "filters", role: "search", hidden: filters.length === 0 }, filters);
  const scroller = make("div", { class: "scroller", role: "region", tabindex: 0, "aria-label": t("Table") }, make("table", { "data-testid": name }, make("thead", {}, head), body));
  let next;
  let turn = 0;
  let typing;

  function address() {
    const asked = Object.entries({ ...query, ...Object.fromEntries(new FormData(form)), limit }).filter(([, value]) => value !== "" && value != null);
    return `${path}?${translate(new URLSearchParams(asked))}`;
  }

  function row(entry) {
    const element = make("tr", { "data-name": entry.name ?? entry.id });
    element.append(...columns.map(({ title, cell, quiet }) => make("td", { "data-title": quiet ? "" : title }, cell(entry, element))));
    return element;
  }

  async function page(from, fresh = false) {
    const mine = (turn += 1);
    const { entries, next: after } = await list(from);
    if (mine !== turn || signal?.aborted) return;
    if (fresh) body.replaceChildren();
    body.append(...entries.map(row));
    next = after;
    more.hidden = !next;
    nothing.hidden = body.childElementCount > 0;
    scroller.hidden = body.childElementCount === 0;
  }

  const load = () => page(address(), true);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load().catch(notice);
  });
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => load().catch(notice), 250);
  });
  return { element: make("div", {}, form, scroller, nothing, more), load, row, body, address };
}

/** A field that searches. */
export const search = (testid, label) => make("input", { type: "search", name: "search", placeholder: label, "aria-label": label, "data-testid": testid });

/** The heading of a page, and what can be done there. */
export const title = (words, ...actions) => make("div", { class: "title" }, make("h1", {}, words), actions);
