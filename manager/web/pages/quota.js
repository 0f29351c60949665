// How much somebody's desktops may have together.

import { patch } from "./api.js";
import { field, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { t } from "./text.js";
import { meters } from "./usage.js";

const GIB = 2 ** 30;

/** What can be limited: its name, its words, its unit, and the smallest step. */
const LIMITS = () => [
  ["desktops", t("Desktops"), 1, 1], ["memory", t("Memory in GiB"), GIB, 0.25], ["cpus", t("Processors"), 1, 1],
  ["disk", t("Disks in GiB"), GIB, 1], ["snapshots", t("Snapshots"), 1, 1],
];

/** Opens a dialog for the quota of a user or a group, which is changed by `PATCH` of `at`. */
export function changeQuota({ name, quota, used, lead, at }, load) {
  // what the service does not count it does not limit either
  const limits = LIMITS().filter(([limit]) => used[limit] !== undefined);
  const fields = limits.map(([limit, words, unit, step]) =>
    field(words, { name: limit, type: "number", min: 0, step, value: quota[limit] == null ? "" : quota[limit] / unit, placeholder: t("no limit"), "data-testid": `quota-${limit}` }));
  sheet({
    name: "quota", title: t("Quota of {name}", { name }), action: t("Change"), lead, content: [meters({ quota, used }), make("div", { class: "pair three" }, fields)],
    work: async (elements) => {
      const fresh = { ...quota };
      for (const [limit, , unit] of limits) {
        const { value } = elements[limit];
        if (value === "") delete fresh[limit];
        else fresh[limit] = Math.round(Number(value) * unit);
      }
      await patch(at, { quota: fresh });
      await load();
    },
  });
}
