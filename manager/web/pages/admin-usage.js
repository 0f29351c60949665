// What everybody used lately, from the service's records.

import { size } from "./api.js";
import { search, table, title } from "./admin.js";
import { choice } from "./dialogs.js";
import { make } from "./dom.js";
import { t } from "./text.js";
import { hours } from "./usage.js";

const since = (days) => new Date(Date.now() - days * 24 * 3600 * 1000).toISOString();

export async function show({ root, signal }) {
  const who = search("usage-user", t("Of this user"));
  who.name = "user";
  const what = choice([["user", t("By user")], ["desktop", t("By desktop")]], "user", { name: "by", "aria-label": t("Added up"), "data-testid": "usage-by" });
  const days = choice([1, 7, 30, 90].map((count) => [String(count), count === 1 ? t("Last day") : t("Last {count} days", { count })]), "30", { name: "days", "aria-label": t("Time"), "data-testid": "usage-days" });
  const view = table({
    name: "usage", path: "/v1/usage", signal, none: t("Nothing ran."), filters: [who, what, days],
    translate(query) {
      query.set("since", since(Number(query.get("days"))));
      query.delete("days");
      return query;
    },
    columns: [
      { title: t("Owner"), cell: ({ owner }) => make("b", {}, owner) },
      { title: t("Desktop"), cell: ({ desktop }) => desktop ?? t("all") },
      { title: t("Ran"), cell: (usage) => hours(usage.running_seconds) },
      { title: t("Processors' time"), cell: (usage) => hours(usage.cpu_seconds) },
      { title: t("Memory"), cell: (usage) => t("{count} GiB h", { count: (usage.memory_mib_seconds / 1024 / 3600).toFixed(1) }) },
      { title: t("Disks"), cell: (usage) => size(usage.disk_bytes) },
    ],
  });
  await view.load();
  const save = make("a", { class: "button", download: "yunju-usage.csv", href: "#", "data-testid": "usage-export",
    onclick: ({ currentTarget }) => {
      const query = new URLSearchParams(view.address().split("?")[1]);
      query.delete("limit");
      query.set("format", "csv");
      currentTarget.href = `/v1/usage?${query}`;
    } }, t("Save as CSV"));
  root.append(title(t("Usage"), save), view.element);
}
