// One desktop in the list: how it is, and what can be done with it.

import { change, desktop as path, part, size, when } from "./api.js";
import { confirm, nameField, sheet } from "./dialogs.js";
import { drawing, make } from "./dom.js";
import { ICONS } from "./icons.js";
import { item, menu } from "./menu.js";
import { openFork, openMoments } from "./moments.js";
import { notice, say } from "./notices.js";
import { busy, work } from "./operations.js";
import { picture } from "./pictures.js";
import { t, told } from "./text.js";
import { trash } from "./trash.js";
import { said } from "./watchers.js";

/** How a desktop is, in a word: `failed` is what stopped and should not have. */
export function condition(desktop) {
  return desktop.state === "stopped" && desktop.ended?.failed ? "failed" : desktop.state;
}

/** What a desktop is made of. */
export function facts(desktop) {
  const processors = desktop.cpus === 1 ? t("1 processor") : t("{count} processors", { count: desktop.cpus });
  return `${desktop.image} · ${size(desktop.memory)} · ${processors}`;
}

/** What can be done with a desktop, by name; each hands back the desktop as it is then, if it knows. */
export const doing = {
  start: ({ id }) => work(path(id, "/start")),
  resume: ({ id }) => work(path(id, "/resume")),
  suspend: ({ id }) => work(path(id, "/suspend")),
  // whoever asks twice means it
  stop: ({ id, state }) => work(path(id, "/stop"), { force: state === "stopping" }),
  restart: ({ id }) => work(path(id, "/restart")),
  async undo({ id, name, restore_point: point }) {
    const text = t("It becomes what it was {time}. What it is now is kept: undo again to come back.", { time: when(point) });
    if (await confirm(t("Undo {name}?", { name }), text, t("Undo"))) return work(path(id, "/undo"));
  },
  rename({ id, name }) {
    sheet({
      name: "rename", title: t("Rename {name}", { name }), action: t("Rename"), content: [nameField("rename-name", undefined, name)],
      work: async ({ name: chosen }) => void (await change(path(id), { name: chosen.value })),
    }).form.elements.name.select();
  },
  async delete({ id, name }) {
    const text = trash.there ? t("For a while it can be recovered, below your desktops. Then everything in it is gone.") : t("Everything in it is lost. This cannot be undone.");
    if (!(await confirm(t("Delete {name}?", { name }), text, t("Delete")))) return;
    await work(path(id), undefined, "DELETE");
    say(t("{name} is deleted.", { name }));
  },
};

export class Card {
  /** `gone` is told when the desktop is deleted here. */
  constructor({ changed }) {
    this.changed = changed;
    this.element = this.build();
  }

  build() {
    const button = (name, words, more = {}) => make("button", { type: "button", "data-testid": `desktop-${name}`, onclick: () => this.run(name), ...more }, words);
    const choice = (name, words, more) => item(words, `desktop-${name}`, () => this.run(name), more);
    const moments = item(t("Snapshots …"), "desktop-snapshots", () => openMoments(this.desktop).catch(notice));
    const fork = item(t("Fork …"), "desktop-fork", () => openFork(this.desktop));
    this.image = make("img", { alt: "", hidden: true, "data-testid": "desktop-picture" });
    return make("li", { class: "card", "data-testid": "desktop-card" },
      make("a", { class: "picture", tabindex: -1, "aria-hidden": true }, drawing(...ICONS.display), this.image),
      make("div", { class: "body" },
        make("div", { class: "head" }, make("h2", { "data-testid": "desktop-name" }), make("span", { class: "state", "data-testid": "desktop-state" })),
        make("p", { class: "facts quiet", "data-testid": "desktop-facts" }),
        make("p", { class: "since quiet", "data-testid": "desktop-since" }),
        make("p", { class: "watching", role: "status", "data-testid": "desktop-watchers", hidden: true }),
        make("p", { class: "busy", role: "status", "data-testid": "desktop-busy", hidden: true }),
        make("p", { class: "reason", "data-testid": "desktop-reason", hidden: true })),
      make("div", { class: "actions" },
        make("a", { class: "button primary", "data-testid": "desktop-open" }, t("Open")),
        button("start", t("Start"), { class: "primary" }),
        button("suspend", t("Suspend"), { title: t("It uses no memory and goes on where it was") }),
        button("stop", t("Stop")),
        menu({
          label: t("More"), testid: "desktop-more", above: true,
          items: [
            choice("resume", t("Wake it")), moments,
            choice("undo", t("Undo"), { more: make("span", { class: "quiet", "data-testid": "desktop-undo-time" }) }),
            fork, choice("rename", t("Rename …")), choice("restart", t("Restart")), choice("delete", t("Delete …"), { danger: true }),
          ],
        })));
  }

  async run(name) {
    const before = this.desktop;
    const buttons = this.element.querySelectorAll(".actions > button");
    for (const button of buttons) button.disabled = true;
    try {
      const now = await doing[name](before);
      if (now?.id === before.id) this.show(now);
      this.changed(before.id);
    } catch (error) {
      notice(error);
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  }

  show(desktop) {
    this.desktop = desktop;
    const { element } = this;
    const { state, name } = desktop;
    const asleep = ["stopped", "suspended"].includes(state);
    const failed = asleep && desktop.ended?.failed === true;
    Object.assign(element.dataset, { name, state, failed, id: desktop.id });
    const set = (which, change) => change(part(`desktop-${which}`, element));
    const text = (which, words) => set(which, (e) => (e.textContent = words));
    const only = (which, shown) => set(which, (e) => (e.hidden = !shown));
    text("name", name);
    set("state", (e) => {
      e.dataset.state = condition(desktop);
      e.textContent = t(condition(desktop));
    });
    text("facts", facts(desktop));
    text("since", desktop.since ? t("since {time}", { time: when(desktop.since) }) : "");
    only("reason", asleep && desktop.ended?.reason);
    text("reason", told(desktop.ended?.reason ?? ""));
    const address = `/desktops/${encodeURIComponent(name)}`;
    only("open", ["running", "starting", "suspended", "suspending"].includes(state));
    set("open", (e) => {
      e.href = address;
      e.setAttribute("aria-label", t("Open {name}", { name }));
    });
    element.querySelector(".picture").href = address;
    part("desktop-more", element).setAttribute("aria-label", t("More of {name}", { name }));
    only("start", state === "stopped");
    only("resume", state === "suspended");
    only("suspend", state === "running");
    only("restart", state === "running");
    only("undo", Boolean(desktop.restore_point));
    text("undo-time", desktop.restore_point ? t("back to {time}", { time: when(desktop.restore_point) }) : "");
    only("stop", !asleep && state !== "suspending");
    text("stop", state === "stopping" ? t("Stop now") : t("Stop"));
    picture(this.image, desktop);
    this.work();
    this.watched();
  }

  /** Says who else looks at it. */
  watched() {
    const words = this.desktop.state === "running" ? said(this.desktop.id) : null;
    const place = part("desktop-watchers", this.element);
    place.hidden = !words;
    place.replaceChildren(...(words ? [words] : []));
  }

  /** Says what is being done with it. */
  work() {
    const doing = busy(this.desktop.id);
    const place = part("desktop-busy", this.element);
    place.hidden = !doing;
    place.textContent = doing ?? "";
    this.element.setAttribute("aria-busy", String(Boolean(doing)));
  }
}
