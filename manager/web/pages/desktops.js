// The desktops that one sees: their states as they change, and what can be done with them.

import { blob, desktop as path, get, loggedOut, part, post, remove, sleep, when } from "./api.js";
import { confirm, form } from "./dialogs.js";
import { openFork, openMoments } from "./moments.js";
import { t, told } from "./text.js";

const list = part("desktop-list");
const template = document.getElementById("card");
const cards = new Map(); // id → { element, desktop, pictured }
let me;

// a picture is looked at anew after this
const PICTURE_AGE = 5000;

function notice(error) {
  if (loggedOut(error)) return;
  const element = part("notice");
  element.textContent = error.message;
  element.hidden = false;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => (element.hidden = true), 8000);
}

const size = (bytes) => (bytes >= 2 ** 30 ? `${+(bytes / 2 ** 30).toFixed(1)} GiB` : `${bytes / 2 ** 20} MiB`);

export function show(desktop) {
  let card = cards.get(desktop.id);
  if (!card) {
    card = { element: template.content.firstElementChild.cloneNode(true), pictured: 0 };
    cards.set(desktop.id, card);
    list.append(card.element);
    wire(card);
  }
  card.desktop = desktop;
  const { element } = card;
  const failed = ["stopped", "suspended"].includes(desktop.state) && desktop.ended?.failed === true;
  element.dataset.name = desktop.name;
  element.dataset.state = desktop.state;
  element.dataset.failed = failed;
  const set = (name, change) => change(part(name, element));
  set("desktop-name", (e) => (e.textContent = desktop.name));
  set("desktop-state", (e) => {
    const shown = failed && desktop.state === "stopped" ? "failed" : desktop.state;
    e.dataset.state = shown;
    e.textContent = t(shown);
  });
  const processors = desktop.cpus === 1 ? t("1 processor") : t("{count} processors", { count: desktop.cpus });
  const owner = me.role === "admin" ? `${desktop.owner} · ` : "";
  set("desktop-facts", (e) => (e.textContent = `${owner}${desktop.image} · ${size(desktop.memory)} · ${processors}`));
  set("desktop-reason", (e) => {
    e.hidden = !["stopped", "suspended"].includes(desktop.state) || !desktop.ended;
    e.textContent = told(desktop.ended?.reason ?? "");
  });
  const up = ["running", "starting", "suspended"].includes(desktop.state);
  set("desktop-open", (e) => {
    e.hidden = !up;
    e.href = `/desktops/${desktop.name}`;
  });
  element.querySelector(".picture").href = `/desktops/${desktop.name}`;
  set("desktop-start", (e) => (e.hidden = desktop.state !== "stopped"));
  set("desktop-resume", (e) => (e.hidden = desktop.state !== "suspended"));
  set("desktop-suspend", (e) => (e.hidden = desktop.state !== "running"));
  set("desktop-restart", (e) => (e.hidden = desktop.state !== "running"));
  set("desktop-undo", (e) => (e.hidden = !desktop.restore_point));
  set("desktop-undo-time", (e) => (e.textContent = desktop.restore_point ? t("back to {time}", { time: when(desktop.restore_point) }) : ""));
  set("desktop-stop", (e) => {
    e.hidden = ["stopped", "suspended", "suspending"].includes(desktop.state);
    // whoever asks twice means it
    e.textContent = desktop.state === "stopping" ? t("Stop now") : t("Stop");
  });
  picture(card);
}

async function picture(card) {
  const image = part("desktop-picture", card.element);
  const { state } = card.desktop;
  if (!["running", "suspending", "suspended"].includes(state)) {
    image.hidden = true;
    card.pictured = 0;
    return;
  }
  // that of a desktop that sleeps stays
  const age = state === "running" ? PICTURE_AGE : Infinity;
  if (card.picturedIn === state && card.pictured && Date.now() - card.pictured < age) return;
  card.pictured = Date.now();
  card.picturedIn = state;
  try {
    const url = URL.createObjectURL(await blob(path(card.desktop.id, "/screenshot")));
    const old = image.src;
    image.src = url;
    await image.decode();
    image.hidden = !["running", "suspending", "suspended"].includes(card.desktop.state);
    if (old) URL.revokeObjectURL(old);
  } catch {
    // no picture yet
  }
}

function wire(card) {
  const on = (name, work) =>
    part(name, card.element).addEventListener("click", async (event) => {
      const button = event.currentTarget;
      button.disabled = true;
      try {
        button.closest("details")?.removeAttribute("open");
        const changed = await work(card.desktop);
        if (changed) show(changed);
      } catch (error) {
        notice(error);
      } finally {
        button.disabled = false;
      }
    });
  on("desktop-start", ({ id }) => post(path(id, "/start")));
  on("desktop-resume", ({ id }) => post(path(id, "/resume")));
  on("desktop-suspend", (desktop) => {
    show({ ...desktop, state: "suspending" });
    return post(path(desktop.id, "/suspend"));
  });
  on("desktop-undo", async ({ id, name, restore_point: point }) => {
    const text = t("It becomes what it was {time}. What it is now is kept: undo again to come back.", { time: when(point) });
    if (await confirm(t("Undo {name}?", { name }), text, t("Undo"))) return post(path(id, "/undo"));
  });
  on("desktop-fork", (desktop) => void openFork(desktop));
  on("desktop-snapshots", (desktop) => openMoments(desktop));
  on("desktop-restart", ({ id }) => post(path(id, "/restart")));
  on("desktop-stop", ({ id, state }) => post(path(id, "/stop"), { force: state === "stopping" }));
  on("desktop-delete", async ({ id, name }) => {
    const sure = await confirm(t("Delete {name}?", { name }), t("Everything in it is lost. This cannot be undone."), t("Delete"));
    if (!sure) return;
    await remove(path(id));
    forget(id);
  });
}

// a menu closes when something else is chosen
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.removeAttribute("open");
  }
});

function forget(id) {
  cards.get(id)?.element.remove();
  cards.delete(id);
  part("desktops-empty").hidden = cards.size > 0;
}

async function refresh() {
  const desktops = await get("/v1/desktops");
  const seen = new Set(desktops.map(({ id }) => id));
  for (const id of cards.keys()) if (!seen.has(id)) forget(id);
  desktops.forEach(show);
  // cards stand in the order of the list
  desktops.forEach(({ id }, place) => {
    const { element } = cards.get(id);
    if (list.children[place] !== element) list.insertBefore(element, list.children[place] ?? null);
  });
  part("desktops-empty").hidden = cards.size > 0;
}

async function watch() {
  for (;;) {
    if (!document.hidden) await refresh().catch(notice);
    await sleep(2000);
  }
}

function options(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
}

let images = [];

function describe() {
  const chosen = images.find(({ name }) => name === part("create-image").value);
  part("create-description").textContent = chosen?.description ?? "";
}

part("create-image").addEventListener("change", describe);
part("desktop-create").addEventListener("click", async () => {
  try {
    images = (await get("/v1/images")).filter(({ problem }) => !problem);
    options(part("create-image"), images.map(({ name }) => name), "desktop");
    describe();
    part("create-error").textContent = images.length ? "" : t("There is no image yet: an admin builds one with `yunju image build`.");
    part("create-submit").disabled = images.length === 0;
    part("create-owner").parentElement.hidden = me.role !== "admin";
    if (me.role === "admin") options(part("create-owner"), (await get("/v1/users")).map(({ name }) => name), me.name);
    part("create-dialog").showModal();
  } catch (error) {
    notice(error);
  }
});
part("create-cancel").addEventListener("click", () => part("create-dialog").close());
form(part("create-dialog"), part("create-error"), async ({ name, image, owner }) => {
  const whose = me.role === "admin" ? { owner: owner.value } : {};
  show(await post("/v1/desktops", { name: name.value, image: image.value, start: true, ...whose }));
  part("desktops-empty").hidden = true;
});

part("change-password").addEventListener("click", () => part("password-dialog").showModal());
part("password-cancel").addEventListener("click", () => part("password-dialog").close());
form(part("password-dialog"), part("password-error"), ({ current, new: fresh }) =>
  post("/v1/session/password", { current: current.value, new: fresh.value }),
);

part("logout").addEventListener("click", async () => {
  await remove("/v1/session").catch(() => {});
  location.assign("/login");
});

try {
  me = await get("/v1/session");
  part("user-name").textContent = me.name;
  await watch();
} catch (error) {
  notice(error);
}
