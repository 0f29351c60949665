// The desktops of all: how they are, and what an admin may do with them.

import { desktop as path, get, part, when } from "./api.js";
import { search, table, title } from "./admin.js";
import { condition, doing, facts } from "./card.js";
import { make } from "./dom.js";
import * as events from "./events.js";
import { may } from "./me.js";
import { item, menu } from "./menu.js";
import { notice } from "./notices.js";
import { busy, on as onWork } from "./operations.js";
import { t, told } from "./text.js";

function actions(desktop, again) {
  const { name, state } = desktop;
  const run = (what) => () => Promise.resolve(doing[what](desktop)).then(() => again(desktop.id)).catch(notice);
  const choice = (what, words, shown = true, more = {}) => shown && item(words, `admin-${what}`, run(what), more);
  return menu({
    label: t("More of {name}", { name }), testid: "admin-desktop-more",
    items: [
      state !== "stopped" && make("a", { class: "button", href: `/desktops/${encodeURIComponent(name)}`, "data-testid": "admin-open" }, t("Open")),
      choice("start", t("Start"), state === "stopped"), choice("resume", t("Wake it"), state === "suspended"),
      choice("suspend", t("Suspend"), state === "running"), choice("stop", state === "stopping" ? t("Stop now") : t("Stop"), ["running", "starting", "stopping"].includes(state)),
      choice("restart", t("Restart"), state === "running"), choice("rename", t("Rename …")), choice("delete", t("Delete …"), true, { danger: true }),
    ],
  });
}

function how(desktop) {
  const reason = desktop.state === "stopped" && desktop.ended?.failed ? told(desktop.ended.reason) : "";
  const doingNow = busy(desktop.id);
  return make("span", { class: "how" }, make("span", { class: "state", "data-state": condition(desktop), "data-testid": "admin-state" }, t(condition(desktop))),
    (doingNow || desktop.since) && make("span", { class: "quiet" }, doingNow ?? t("since {time}", { time: when(desktop.since) })), reason && make("span", { class: "error" }, reason));
}

export async function show({ root, signal }) {
  const view = table({
    name: "desktops", path: "/v1/desktops", signal, none: t("There is no such desktop."), filters: [search("admin-desktop-search", t("Search names, owners, images"))],
    columns: [
      { title: t("Name"), cell: (desktop, row) => ((row.dataset.id = desktop.id), (row.dataset.state = desktop.state), make("b", {}, desktop.name)) },
      { title: t("Owner"), cell: ({ owner }) => owner },
      { title: t("State"), cell: how },
      { title: t("Made of"), cell: facts },
      ...(may.rule ? [{ title: t("Actions"), quiet: true, cell: (desktop) => actions(desktop, again) }] : []),
    ],
  });
  async function again(id) {
    const row = view.body.querySelector(`[data-id="${id}"]`);
    if (!row) return;
    const fresh = await get(path(id)).catch((error) => error);
    if (signal.aborted) return;
    if (fresh.status === 404) return row.remove();
    if (!fresh.id) return;
    row.dataset.state = fresh.state;
    // a menu that somebody looks at stays
    if (row.querySelector("details[open]")) return part("admin-state", row).closest(".how").replaceWith(how(fresh));
    const focused = row.contains(document.activeElement);
    const changed = view.row(fresh);
    row.replaceWith(changed);
    if (focused) part("admin-desktop-more", changed)?.focus();
  }
  await view.load();
  root.append(title(t("All desktops")), view.element);
  for (const kind of ["desktop.state", "desktop.change", "desktop.remove"]) events.on(kind, ({ id }) => again(id), signal);
  onWork("work", ({ desktop_id: id }) => again(id), signal);
}
