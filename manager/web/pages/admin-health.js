// Whether the service is well.

import { get } from "./api.js";
import { title } from "./admin.js";
import { make } from "./dom.js";
import * as events from "./events.js";
import { t } from "./text.js";

const fact = (words, value, testid) => make("div", { class: "fact" }, make("dt", {}, words), make("dd", { "data-testid": testid }, value));

export async function show({ root, signal }) {
  const facts = make("dl", { class: "facts-grid", "data-testid": "health" });
  async function load() {
    const health = await get("/v1/health");
    if (signal.aborted) return;
    facts.replaceChildren(
      fact(t("Service"), make("span", { class: "state", "data-state": health.status === "ok" ? "running" : "failed" }, health.status === "ok" ? t("well") : health.status), "health-status"),
      fact(t("Version"), health.version, "health-version"),
      fact(t("Events"), make("span", { class: "state", "data-state": events.live ? "running" : "stopping" }, events.live ? t("arrive at once") : t("connecting")), "health-events"),
    );
  }
  await load();
  root.append(title(t("Health")), facts,
    make("p", { class: "quiet" }, make("a", { href: "/docs/api" }, t("The API, described"))));
  events.on("open", () => load().catch(() => {}), signal);
  events.on("lost", () => load().catch(() => {}), signal);
}
