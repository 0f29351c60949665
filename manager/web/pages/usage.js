// What the own desktops have, and what of it the quota leaves.

import { list, size } from "./api.js";
import { make } from "./dom.js";
import { me } from "./me.js";
import { locale, t } from "./text.js";

function row(words, used, most, say) {
  const text = most == null ? say(used) : t("{used} of {most}", { used: say(used), most: say(most) });
  return make("div", { class: "meter", "data-full": most != null && used >= most },
    make("span", { class: "pair" }, make("span", {}, words), make("b", {}, text)),
    most != null && make("progress", { max: most, value: Math.min(used, most), "aria-label": words }));
}

/** Of anybody: what there is, and how much of it may be. */
export function meters({ used, quota }) {
  return make("div", { class: "meters column" },
    row(t("Desktops"), used.desktops, quota.desktops, String),
    row(t("Memory"), used.memory, quota.memory, size),
    row(t("Processors"), used.cpus, quota.cpus, String),
    used.disk !== undefined && row(t("Disks"), used.disk, quota.disk, size),
    used.snapshots !== undefined && row(t("Snapshots"), used.snapshots, quota.snapshots, String));
}

/** Hours, of seconds. */
export const hours = (seconds) => t("{count} h", { count: (seconds / 3600).toLocaleString(locale, { maximumFractionDigits: seconds < 36_000 ? 2 : 0 }) });

const DAYS = 30;

/** The beginning of what counts as lately. */
export const lately = () => new Date(Date.now() - DAYS * 24 * 3600 * 1000).toISOString();

/** What ran lately, from the service's records; null where it keeps none. */
async function records() {
  const query = new URLSearchParams({ by: "desktop", user: me.name, since: lately() });
  const { entries } = await list(`/v1/usage?${query}`).catch((error) => {
    if (error.status !== 404) throw error;
    return { entries: null };
  });
  if (!entries?.length) return null;
  const row = (usage) => make("li", { "data-testid": "usage-desktop" },
    make("span", { class: "what" }, make("b", {}, usage.desktop ?? t("deleted")), make("span", { class: "quiet" }, t("ran {hours}, processor {work}, disks {size}", { hours: hours(usage.running_seconds), work: hours(usage.cpu_seconds), size: size(usage.disk_bytes) }))));
  return make("details", { class: "records" }, make("summary", {}, t("In the last {count} days", { count: DAYS })), make("ul", { class: "rows" }, entries.map(row)),
    make("a", { class: "button", href: `/v1/usage?${query}&format=csv`, download: "yunju-usage.csv" }, t("Save as CSV")));
}

export async function usageSection(section) {
  return section("usage", t("What you use"), t("Of all your desktops together, whether they run or not."), meters(me), await records());
}
