// The own account: password, second factor, where one is logged in, API tokens, how the pages look, what is used.

import { dayOf, get, part, post, remove, when } from "./api.js";
import { choice, confirm, copyable, field, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { factorSection } from "./factor.js";
import { me, meet } from "./me.js";
import { notice, say } from "./notices.js";
import { LANGUAGES, language, speak, t } from "./text.js";
import { THEMES, dress, theme } from "./theme.js";
import { usageSection } from "./usage.js";

/** A part of the page with a heading. */
export function section(name, title, lead, ...content) {
  const id = `${name}-heading`;
  return make("section", { class: "panel", "aria-labelledby": id, "data-testid": `section-${name}` }, make("h2", { id }, title), lead && make("p", { class: "quiet" }, lead), content);
}

function passwordSection() {
  const secret = (name, autocomplete, more = {}) => ({ name, type: "password", autocomplete, maxlength: 256, required: true, "data-testid": `password-${name}`, ...more });
  const open = () => sheet({
    name: "password", title: t("Change password"), action: t("Change"),
    content: [
      make("input", { name: "username", autocomplete: "username", value: me.name, hidden: true }),
      field(t("Current password"), secret("current", "current-password")),
      field(t("New password"), secret("new", "new-password", { minlength: 8 }), t("8 characters or more")),
      field(t("Again"), secret("again", "new-password", { minlength: 8 })),
    ],
    work: async ({ current, new: fresh, again }) => {
      if (fresh.value !== again.value) throw new Error(t("The two passwords differ."));
      await post("/v1/session/password", { current: current.value, new: fresh.value });
      say(t("Your password is changed. You are logged out everywhere else."));
    },
  });
  return section("password", t("Password"), t("Whoever changes it is logged out everywhere else."),
    make("button", { type: "button", "data-testid": "change-password", onclick: open }, t("Change password …")));
}

/** What a browser calls itself, in few words. */
function browser(agent) {
  const [, name] = /(Firefox|Edg|OPR|Chrome|Safari)[/]/.exec(agent) ?? [];
  const [, system] = /(Windows|Android|iPhone|iPad|Mac OS X|Linux)/.exec(agent) ?? [];
  const words = { Edg: "Edge", OPR: "Opera" }[name] ?? name;
  return [words, system?.replace("Mac OS X", "macOS")].filter(Boolean).join(" · ") || agent.slice(0, 60) || t("Unknown");
}

function sessionsSection() {
  const list = make("ul", { class: "rows", "data-testid": "session-list" });
  async function load() {
    const sessions = await get("/v1/sessions");
    sessions.sort((one, other) => Number(other.current) - Number(one.current) || (other.last_used < one.last_used ? -1 : 1));
    list.replaceChildren(...sessions.map((session) =>
      make("li", { "data-testid": "session" },
        make("span", { class: "what" }, make("b", {}, browser(session.agent)), make("span", { class: "quiet" }, t("{address}, last used {time}", { address: session.address, time: when(session.last_used) }))),
        session.current ? make("span", { class: "chip" }, t("this one"))
          : make("button", { type: "button", class: "plain danger", "data-testid": "session-end", "aria-label": t("End the session of {name}", { name: browser(session.agent) }), onclick: () => remove(`/v1/sessions/${session.id}`).then(load).catch(notice) }, t("End")))));
  }
  return { load, element: section("sessions", t("Where you are logged in"), t("Ending one also ends what is open by it."), list) };
}

const SCOPES = () => ({
  read: t("See desktops and their snapshots"), screen: t("Look at screens, logs and consoles"),
  desktops: t("Make, change and delete desktops"), admin: t("Manage users and the service, as far as you may"),
});

function tokensSection() {
  const list = make("ul", { class: "rows", "data-testid": "token-list" });
  const none = make("p", { class: "quiet" }, t("None yet."));
  async function load() {
    const tokens = await get("/v1/tokens");
    none.hidden = tokens.length > 0;
    list.replaceChildren(...tokens.map((token) =>
      make("li", { "data-testid": "token" },
        make("span", { class: "what" }, make("b", {}, token.name),
          make("span", { class: "quiet" }, [token.scopes.join(", "), t("until {day}", { day: dayOf(token.expires) }), token.last_used ? t("last used {time}", { time: when(token.last_used) }) : t("never used")].join(" · "))),
        make("button", { type: "button", class: "plain danger", "data-testid": "token-end", onclick: async () => {
          if (!(await confirm(t("Remove the token {name}?", { name: token.name }), t("What uses it is not let in any more."), t("Remove")))) return;
          await remove(`/v1/tokens/${token.id}`).then(load).catch(notice);
        } }, t("Remove")))));
  }
  function open() {
    const scopes = Object.entries(SCOPES()).filter(([name]) => name !== "admin" || me.roles.includes("admin")).map(([name, words]) =>
      make("label", { class: "check" }, make("input", { type: "checkbox", name: "scope", value: name, checked: name === "read", "data-testid": `token-scope-${name}` }), make("span", {}, make("b", {}, name), make("span", { class: "quiet" }, words))));
    const days = [7, 30, 90, 366].map((count) => [String(count), t("{count} days", { count })]);
    sheet({
      name: "token", title: t("New API token"), lead: t("For programs, and for `yunju login` on other computers."), action: t("Make it"),
      content: [
        field(t("Name"), { name: "name", pattern: "[a-z0-9][a-z0-9\\-]*", maxlength: 32, required: true, autocapitalize: "none", spellcheck: "false", "data-testid": "token-name" }, t("Small letters, digits and dashes")),
        make("fieldset", { class: "checks" }, make("legend", {}, t("What it is for")), scopes),
        field(t("It lasts"), choice(days, "30", { name: "days", "data-testid": "token-days" })),
      ],
      work: async ({ name, scope, days: count }) => {
        const chosen = [...scope].filter(({ checked }) => checked).map(({ value }) => value);
        if (chosen.length === 0) throw new Error(t("Choose what it is for."));
        const { token } = await post("/v1/tokens", { name: name.value, scopes: chosen, days: Number(count.value) });
        load().catch(notice);
        sheet({ name: "token-made", title: t("Your token"), lead: t("Copy it now: it is shown only once."), content: [copyable(token, "token-secret")], close: t("Done") });
      },
    });
  }
  const button = make("button", { type: "button", "data-testid": "token-new", onclick: open }, t("New token …"));
  return { load, element: section("tokens", t("API tokens"), t("They do what you may, as far as you say, and never change your account."), list, none, button) };
}

/** A row of buttons of which one is chosen. */
function segments(label, options, chosen, chose, testid) {
  const buttons = options.map(([value, words]) => make("button", { type: "button", "aria-pressed": String(value === chosen), "data-testid": `${testid}-${value}-choice`, onclick: ({ currentTarget }) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === currentTarget));
    chose(value);
  } }, words));
  return make("div", { class: "setting" }, make("span", {}, label), make("div", { class: "segments", role: "group", "aria-label": label }, buttons));
}

function looksSection() {
  const names = { auto: t("Auto"), light: t("Light"), dark: t("Dark") };
  return section("looks", t("Language and appearance"), t("Kept in this browser."),
    segments(t("Language"), Object.entries(LANGUAGES), language, speak, "language"),
    segments(t("Appearance"), THEMES.map((name) => [name, names[name]]), theme(), dress, "theme"));
}

export async function show({ root }) {
  await meet();
  const [sessions, tokens] = [sessionsSection(), tokensSection()];
  const [, , usage] = await Promise.all([sessions.load(), tokens.load(), usageSection(section)]);
  root.append(
    make("div", { class: "title" }, make("h1", {}, t("Account"))),
    make("div", { class: "panels" }, passwordSection(), factorSection(section), sessions.element, tokens.element, usage, looksSection()),
  );
  part("section-password", root).querySelector("button").setAttribute("aria-haspopup", "dialog");
}
