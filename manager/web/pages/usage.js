// What the own desktops have, and what of it the quota leaves.

import { size } from "./api.js";
import { make } from "./dom.js";
import { me } from "./me.js";
import { t } from "./text.js";

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
    row(t("Processors"), used.cpus, quota.cpus, String));
}

export async function usageSection(section) {
  return section("usage", t("What you use"), t("Of all your desktops together, whether they run or not."), meters(me));
}
