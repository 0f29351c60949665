// My desktops: as they change, and what can be done with them.

import { desktop as path, get, list, size } from "./api.js";
import { Card } from "./card.js";
import { left, openCreate } from "./create.js";
import { drawing, make } from "./dom.js";
import * as events from "./events.js";
import { ICONS } from "./icons.js";
import { may, me, meet } from "./me.js";
import { notice } from "./notices.js";
import * as operations from "./operations.js";
import { sharedSection } from "./shared-with-me.js";
import { t } from "./text.js";
import { trashSection } from "./trash.js";
import * as watchers from "./watchers.js";

const PAGE = 60;
// with fewer one sees at once what is there
const MANY = 9;

/** How much of a quota is used. */
function meter(name, words, used, most) {
  const full = used >= most;
  return make("div", { class: "meter", "data-full": full, "data-testid": `quota-${name}` },
    make("span", {}, words),
    make("progress", { max: most, value: Math.min(used, most), "aria-label": words }));
}

function quotas() {
  const { quota, used } = me;
  const rows = [];
  if (quota.desktops != null) rows.push(meter("desktops", t("{used} of {most} desktops", { used: used.desktops, most: quota.desktops }), used.desktops, quota.desktops));
  if (quota.memory != null) rows.push(meter("memory", t("{used} of {most} memory", { used: size(used.memory), most: size(quota.memory) }), used.memory, quota.memory));
  if (quota.cpus != null) rows.push(meter("cpus", t("{used} of {most} processors", { used: used.cpus, most: quota.cpus }), used.cpus, quota.cpus));
  return rows;
}

export async function show({ root, signal }) {
  const cards = new Map(); // id → Card, in the order of the list
  let next; // where the list goes on
  let searched = "";

  const create = make("button", { type: "button", class: "primary", "data-testid": "desktop-create", onclick: () => openCreate(add).catch(notice) }, drawing(...ICONS.add), t("New desktop"));
  const search = make("input", { type: "search", placeholder: t("Search"), "aria-label": t("Search desktops"), hidden: true, "data-testid": "desktop-search", oninput: () => find() });
  const quota = make("div", { class: "meters", "data-testid": "quota" });
  const reached = make("p", { class: "hint", role: "status", hidden: true, "data-testid": "quota-reached" });
  const grid = make("ul", { class: "grid", "data-testid": "desktop-list", "aria-label": t("Desktops") });
  const more = make("button", { type: "button", class: "more", hidden: true, "data-testid": "desktops-next", onclick: () => load(next).catch(notice) }, t("Show more"));
  const empty = make("div", { class: "empty", hidden: true, "data-testid": "desktops-empty" }, drawing(...ICONS.display),
    make("h2", {}, t("No desktop yet")), make("p", { class: "quiet" }, t("A desktop is a computer of your own that opens in this browser.")),
    may.own && make("button", { type: "button", class: "primary", onclick: () => create.click(), "data-testid": "create-first" }, t("Make the first one")));
  const nothing = make("p", { class: "quiet nothing", role: "status", hidden: true, "data-testid": "desktops-none" });

  function bound() {
    quota.replaceChildren(...quotas());
    quota.hidden = quota.childElementCount === 0;
    const rest = left();
    const why = rest.desktops === 0 ? t("Your quota of desktops is used up. Delete one, or ask an admin for more.")
      : rest.memory === 0 || rest.cpus === 0 ? t("Your quota is used up. Make a desktop smaller, delete one, or ask an admin for more.") : "";
    reached.textContent = why;
    reached.hidden = !why;
    create.disabled = Boolean(why);
    create.hidden = !may.own;
  }

  async function count() {
    await meet();
    bound();
  }

  function look() {
    const none = cards.size === 0;
    empty.hidden = !none || searched !== "";
    nothing.hidden = !none || searched === "";
    nothing.textContent = t("No desktop has “{text}” in its name or its image's.", { text: searched });
    search.hidden = searched === "" && cards.size < MANY && !next;
    more.hidden = !next;
  }

  function put(desktop) {
    let card = cards.get(desktop.id);
    if (!card) {
      card = new Card({ changed: (id) => refresh(id) });
      cards.set(desktop.id, card);
      const after = [...grid.children].find((other) => other.dataset.name > desktop.name);
      grid.insertBefore(card.element, after ?? null);
    }
    const before = card.desktop?.state;
    card.show(desktop);
    if (before !== desktop.state) watchers.ask(desktop).then(() => card.watched());
  }

  function add(desktop) {
    if (desktop.owner !== me.name) return;
    put(desktop);
    look();
    count().catch(notice);
  }

  function forget(id) {
    cards.get(id)?.element.remove();
    cards.delete(id);
    look();
  }

  const first = () => `/v1/desktops?owner=${encodeURIComponent(me.name)}&limit=${PAGE}${searched && `&search=${encodeURIComponent(searched)}`}`;

  async function load(address) {
    const page = await list(address);
    if (signal.aborted) return;
    page.entries.forEach(put);
    next = page.next;
    look();
  }

  /** All that is shown, as it is now. */
  async function reload() {
    let address = first();
    const [wanted, seen] = [Math.max(cards.size, 1), new Set()];
    do {
      const page = await list(address);
      if (signal.aborted) return;
      for (const desktop of page.entries) {
        put(desktop);
        seen.add(desktop.id);
      }
      address = next = page.next;
    } while (next && seen.size < wanted);
    for (const id of [...cards.keys()]) if (!seen.has(id)) forget(id);
    look();
  }

  async function refresh(id) {
    try {
      const desktop = await get(path(id));
      if (!signal.aborted && desktop.owner === me.name && (cards.has(id) || searched === "")) put(desktop);
    } catch (error) {
      if (error.status === 404) forget(id);
      else if (error.status !== 0) notice(error);
    }
    look();
  }

  let typing;
  function find() {
    clearTimeout(typing);
    typing = setTimeout(() => {
      searched = search.value.trim();
      reload().catch(notice);
    }, 200);
  }

  const [trash, shared] = [trashSection(), sharedSection(add)];
  bound();
  await Promise.all([load(first()), trash.load(), shared.load()]);
  root.append(
    make("div", { class: "title" }, make("h1", {}, t("Desktops")), search, create),
    quota, reached, grid, empty, nothing, more, shared.element, trash.element,
  );

  const quietly = (promise) => promise.catch((error) => error.status !== 0 && notice(error));
  events.on("open", () => quietly(Promise.all([reload(), count(), trash.load(), shared.load()])), signal);
  events.on("desktop.viewers", ({ id, viewers }) => {
    watchers.told(id, viewers);
    cards.get(id)?.watched();
  }, signal);
  for (const kind of ["desktop.state", "desktop.change"]) events.on(kind, ({ id }) => cards.has(id) && refresh(id), signal);
  events.on("desktop.add", ({ id }) => refresh(id).then(() => quietly(Promise.all([count(), trash.load()]))), signal);
  events.on("desktop.remove", ({ id }) => {
    forget(id);
    quietly(Promise.all([count(), trash.load()]));
  }, signal);
  operations.on("work", ({ desktop_id: id }) => {
    cards.get(id)?.work();
    if (cards.has(id) && !operations.busy(id)) refresh(id);
  }, signal);
}
