// The portal's frame: where one can go, whose account it is, what there is to say; and one module for each page within.
//
// A page's module has `show(view)`: it fills `view.root`, and ends what it does when `view.signal` does. What it throws is
// shown with a button to try again.

import { Refused, loggedOut, onLoggedOut, remove } from "./api.js";
import { sheet } from "./dialogs.js";
import { drawing, make } from "./dom.js";
import * as events from "./events.js";
import { ICONS } from "./icons.js";
import { may, me, meet } from "./me.js";
import { menu } from "./menu.js";
import { notice } from "./notices.js";
import { LANGUAGES, language, locale, speak, t } from "./text.js";
import { THEMES, dress, theme } from "./theme.js";

/** Pages by address: `who` sees them, `tab` is where they stand in the navigation. */
const PAGES = {
  "/": { module: "desktops.js", title: t("Desktops"), tab: "desktops", who: () => may.own || !may.oversee },
  "/account": { module: "account.js", title: t("Account"), tab: "account", who: () => true },
  "/admin/users": { module: "admin-users.js", title: t("Users"), tab: "admin", who: () => may.oversee },
  "/admin/groups": { module: "admin-groups.js", title: t("Groups"), tab: "admin", who: () => may.oversee },
  "/admin/desktops": { module: "admin-desktops.js", title: t("All desktops"), tab: "admin", who: () => may.oversee },
  "/admin/images": { module: "admin-images.js", title: t("Images"), tab: "admin", who: () => may.oversee },
  "/admin/usage": { module: "admin-usage.js", title: t("Usage"), tab: "admin", who: () => may.oversee },
  "/admin/audit": { module: "admin-audit.js", title: t("Audit log"), tab: "admin", who: () => may.oversee },
  "/admin/health": { module: "admin-health.js", title: t("Health"), tab: "admin", who: () => may.oversee },
};

const TABS = [
  { name: "desktops", href: "/", words: t("Desktops"), icon: ICONS.display },
  { name: "admin", href: "/admin/users", words: t("Administration"), icon: ICONS.shield },
  { name: "account", href: "/account", words: t("Account"), icon: ICONS.person },
];

const main = document.querySelector("main");
const banner = make("p", { class: "banner", role: "status", "data-testid": "offline", hidden: true }, make("span", { class: "spinner", "aria-hidden": true }),
  t("The service cannot be reached. This page goes on as soon as it can."));
let leaving = new AbortController();

/** Goes to another page of the portal. */
export function go(address) {
  history.pushState(null, "", address);
  render();
}

function seen(tab) {
  return Object.values(PAGES).some((page) => page.tab === tab && page.who());
}

function frame() {
  const tabs = TABS.filter(({ name }) => seen(name)).map(({ name, href, words, icon }) =>
    make("a", { href, "data-tab": name, "data-testid": `nav-${name}` }, drawing(...icon), make("span", {}, words)));
  document.querySelector(".bar nav").replaceChildren(...tabs);
  document.querySelector(".bar .account").replaceChildren(accountMenu());
  main.before(banner);
}

function accountMenu() {
  const initial = make("span", { class: "avatar", "aria-hidden": true }, [...me.name][0].toUpperCase());
  const face = [initial, make("span", { class: "name", "data-testid": "user-name" }, me.name)];
  const languages = Object.entries(LANGUAGES).map(([tag, words]) =>
    make("button", { type: "button", lang: { en: "en", zh: "zh-CN" }[tag], "aria-pressed": String(tag === language), "data-testid": `language-${tag}`, onclick: () => speak(tag) }, words));
  const names = { auto: t("Auto"), light: t("Light"), dark: t("Dark") };
  const themes = THEMES.map((name) =>
    make("button", { type: "button", "aria-pressed": String(name === theme()), "data-stays": true, "data-testid": `theme-${name}`, onclick: ({ currentTarget }) => {
      dress(name);
      for (const button of currentTarget.parentElement.children) button.setAttribute("aria-pressed", String(button === currentTarget));
    } }, names[name]));
  return menu({
    label: t("Account"), testid: "account-menu", face,
    items: [
      make("p", { class: "whose" }, make("b", {}, me.name), make("span", { class: "quiet" }, me.roles.map((role) => t(role)).join(" · "))),
      make("a", { class: "button", href: "/account", "data-testid": "menu-account" }, t("Account")),
      make("div", { class: "setting" }, make("span", { class: "quiet" }, t("Language")), make("div", { class: "segments", role: "group", "aria-label": t("Language") }, languages)),
      make("div", { class: "setting" }, make("span", { class: "quiet" }, t("Appearance")), make("div", { class: "segments", role: "group", "aria-label": t("Appearance") }, themes)),
      make("button", { type: "button", "data-testid": "logout", onclick: leave }, t("Log out")),
    ],
  });
}

async function leave() {
  onLoggedOut(() => {});
  events.close();
  await remove("/v1/session").catch(() => {});
  location.assign("/login");
}

/** What stands behind `#` at the login page, so that one comes back here. */
const back = () => `/login#next=${encodeURIComponent(location.pathname + location.search)}`;

function signedOut() {
  if (document.querySelector('[data-testid="signed-out-dialog"]')) return;
  events.close();
  const { submit } = sheet({
    name: "signed-out", title: t("You are logged out"), lead: t("The session has ended: it ran out, or it was ended elsewhere."),
    action: t("Log in"), close: t("Stay here"), work: () => location.assign(back()),
  });
  submit.focus();
}

/** Under pages of administration: the others. */
function subnav(address) {
  const links = Object.entries(PAGES).filter(([, page]) => page.tab === "admin" && page.who());
  return make("nav", { class: "subnav", "aria-label": t("Administration") },
    links.map(([href, page]) => make("a", { href, "aria-current": href === address && "page" }, page.title)));
}

function screen(kind, title, text, ...more) {
  return make("div", { class: "empty", "data-testid": `screen-${kind}`, role: kind === "failed" ? "alert" : "" }, drawing(...(ICONS[kind] ?? ICONS.display)), make("h2", {}, title), make("p", { class: "quiet" }, text), more);
}

/** A page's module. A browser does not ask again for one that it could not get once. */
function fetched({ module }) {
  return import(`/assets/${module}`).catch(() => {
    throw new Refused(0, "module", t("The service cannot be reached."));
  });
}

async function render() {
  const address = location.pathname;
  const page = PAGES[address];
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  for (const link of document.querySelectorAll(".bar nav a")) {
    if (link.dataset.tab === page?.tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${page?.title ?? t("No such page")} · ${t("Yunju")}`;
  const root = make("div", { class: "page" });
  main.replaceChildren(...(page?.tab === "admin" && page.who() ? [subnav(address)] : []), root);
  main.querySelector(".subnav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  main.dataset.page = page?.module.replace(".js", "") ?? "";
  if (!page?.who()) {
    if (address === "/" && may.oversee) return go("/admin/users");
    root.append(screen("failed", t("No such page"), t("It is not there, or not for you."), make("a", { class: "button", href: "/" }, t("Desktops"))));
    return;
  }
  const waiting = setTimeout(() => root.childElementCount || root.append(make("div", { class: "loading", role: "status", "data-testid": "loading" }, make("span", { class: "spinner", "aria-hidden": true }), t("Loading …"))), 250);
  try {
    const module = await fetched(page);
    if (signal.aborted) return;
    await module.show({ root, signal, title: page.title });
  } catch (error) {
    if (signal.aborted || loggedOut(error)) return;
    root.replaceChildren(screen("failed", t("This page could not be shown"), error.message, make("button", { class: "primary", onclick: () => (error.code === "module" ? location.reload() : render()), "data-testid": "try-again" }, t("Try again"))));
    // it comes back by itself too
    if (error.status === 0) events.on("open", () => (signal.aborted ? null : error.code === "module" ? location.reload() : render()), signal);
  } finally {
    clearTimeout(waiting);
    root.querySelector('[data-testid="loading"]')?.remove();
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || link.target || link.download) return;
  if (link.origin !== location.origin || !(link.pathname in PAGES)) return;
  event.preventDefault();
  if (link.pathname + link.search !== location.pathname + location.search) go(link.pathname + link.search);
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
window.addEventListener("popstate", render);

onLoggedOut(signedOut);
let lostFor;
events.on("lost", () => (lostFor ??= setTimeout(() => (banner.hidden = false), 1200)));
events.on("open", () => {
  clearTimeout(lostFor);
  lostFor = undefined;
  banner.hidden = true;
});

/** Begins as soon as the service says who this is. */
async function arrive() {
  try {
    await meet();
  } catch (error) {
    if (loggedOut(error)) return;
    main.replaceChildren(screen("failed", t("This page could not be shown"), error.message, make("button", { class: "primary", onclick: arrive }, t("Try again"))));
    setTimeout(() => me || arrive(), 3000);
    return;
  }
  frame();
  events.listen();
  await render();
  // so that the others are there when they are wanted
  setTimeout(() => Object.values(PAGES).filter((page) => page.who()).forEach((page) => fetched(page).catch(() => {})), 1500);
}

document.documentElement.lang = locale;
window.addEventListener("unhandledrejection", ({ reason }) => reason?.status !== undefined && notice(reason));
await arrive();
