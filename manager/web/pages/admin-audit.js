// The audit log: who did what, or tried to.

import { table, title } from "./admin.js";
import { choice, field } from "./dialogs.js";
import { make } from "./dom.js";
import { locale, t } from "./text.js";

const second = (at) => new Date(at).toLocaleString(locale, { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

function filters() {
  const text = (name, label, placeholder) => field(label, { name, placeholder, autocapitalize: "none", spellcheck: "false", "data-testid": `audit-${name}` });
  const day = (name, label) => field(label, { name: `${name}-day`, type: "date", "data-testid": `audit-${name}` });
  const what = choice([["", t("all")], ["false", t("done")], ["true", t("refused")]], "", { name: "refused", "data-testid": "audit-refused" });
  return [text("actor", t("Who"), t("a user's name")), text("action", t("Action"), "desktop, login, user.add …"), text("resource", t("What it was about"), t("a name")), day("since", t("From")), day("until", t("To and with")), field(t("Outcome"), what)];
}

/** Days are whole ones of this device's. */
function moments(query) {
  const asked = new URLSearchParams(query);
  for (const [name, more] of [["since", 0], ["until", 1]]) {
    const day = asked.get(`${name}-day`);
    asked.delete(`${name}-day`);
    if (!day) continue;
    const [year, month, date] = day.split("-").map(Number);
    asked.set(name, new Date(year, month - 1, date + more).toISOString());
  }
  return asked;
}

export async function show({ root, signal }) {
  const view = table({
    name: "audit", path: "/v1/audit", signal, limit: 100, none: t("Nothing of this kind was recorded."), filters: filters(),
    translate: moments,
    columns: [
      { title: t("When"), cell: ({ at }) => make("time", { datetime: at }, second(at)) },
      { title: t("Who"), cell: ({ actor, via, address }) => make("span", {}, make("b", {}, actor || t("nobody known")), make("span", { class: "quiet" }, [` ${via}`, address].filter(Boolean).join(" · "))) },
      { title: t("Action"), cell: ({ action }) => make("code", {}, action) },
      { title: t("What it was about"), cell: ({ resource, detail }) => make("span", { class: "wrap" }, resource, detail && make("span", { class: "quiet" }, ` ${detail}`)) },
      { title: t("Outcome"), cell: ({ status }) => make("span", { class: status < 400 ? "chip good" : "chip bad" }, status < 400 ? t("done") : t("refused: {status}", { status })) },
    ],
  });
  await view.load();
  const save = (format) => make("a", { class: "button", download: `yunju-audit.${format}`, "data-testid": `audit-export-${format}`, href: "#",
    onclick: ({ currentTarget }) => {
      const asked = new URLSearchParams(view.address().split("?")[1]);
      asked.delete("limit");
      if (format === "csv") asked.set("format", "csv");
      currentTarget.href = `/v1/audit/export?${asked}`;
    } }, format === "csv" ? t("Save as CSV") : t("Save as JSON"));
  root.append(title(t("Audit log"), save("csv"), save("jsonl")), view.element);
}
