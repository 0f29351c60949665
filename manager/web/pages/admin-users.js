// Users: invited, given roles and quotas, disabled, let in again.

import { dayOf, patch, post, remove, when } from "./api.js";
import { search, table, title } from "./admin.js";
import { choice, confirm, copyable, field, nameField, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { may, me } from "./me.js";
import { item, menu } from "./menu.js";
import { notice, say } from "./notices.js";
import { changeQuota } from "./quota.js";
import { t } from "./text.js";

const at = (user, rest = "") => `/v1/users/${encodeURIComponent(user.name)}${rest}`;
const roles = () => [["user", t("User: their own desktops")], ["developer", t("Developer: the same, and to publish")], ["auditor", t("Auditor: sees all but screens")], ["admin", t("Admin: everything")]];

/** A link that is shown once. */
function showLink({ user, url, expires }) {
  sheet({
    name: "link", title: t("A link for {name}", { name: user }), lead: t("With it they choose a password, once, until {time}. It is shown only now: send it to them.", { time: when(expires) }),
    content: [copyable(url, "link-url")], close: t("Done"),
  });
}

function invite(load) {
  sheet({
    name: "invite", title: t("Invite somebody"), lead: t("They choose a password by a link that you send them."), action: t("Make the link"),
    content: [nameField("invite-name", t("What they log in with: small letters, digits and dashes")), field(t("Role"), choice(roles(), "user", { name: "role", "data-testid": "invite-role" }))],
    work: async ({ name, role }) => {
      showLink(await post("/v1/invitations", { name: name.value, role: role.value }));
      load().catch(notice);
    },
  });
}

function changeRole(user, load) {
  sheet({
    name: "role", title: t("Role of {name}", { name: user.name }), action: t("Change"),
    lead: user.groups.length ? t("The groups {names} may give them more.", { names: user.groups.join(", ") }) : "",
    content: [field(t("Role"), choice(roles(), user.role, { name: "role", "data-testid": "role-choice" }))],
    work: async ({ role }) => {
      await patch(at(user), { role: role.value });
      await load();
    },
  });
}

function actions(user, load) {
  const attempt = (what) => () => what().catch(notice);
  const sure = async (heading, text, action, what) => (await confirm(heading, text, action)) && (await what(), await load());
  const self = user.name === me.name;
  const { name } = user;
  return menu({
    label: t("More of {name}", { name }), testid: "user-more",
    items: [
      item(t("Role …"), "user-role", () => changeRole(user, load)),
      item(t("Quota …"), "user-quota", () => changeQuota({ name: user.name, quota: user.quota, used: user.used, lead: t("Of all their desktops together, whether they run or not. What they have already stays."), at: at(user) }, load)),
      item(t("Link to choose a password …"), "user-link", attempt(async () => showLink(await post(at(user, "/link"))))),
      user.second_factor && item(t("Remove the second factor …"), "user-factor", attempt(() =>
        sure(t("Remove the second factor of {name}?", { name }), t("For who has lost their authenticator: their password alone lets them in."), t("Remove"), () => remove(at(user, "/factor"))))),
      !self && user.disabled && item(t("Let in again"), "user-enable", attempt(async () => (await patch(at(user), { disabled: false }), await load()))),
      !self && !user.disabled && item(t("Disable …"), "user-disable", attempt(() =>
        sure(t("Disable {name}?", { name }), t("They cannot log in, and what they have open ends at once. Their desktops stay."), t("Disable"), () => patch(at(user), { disabled: true }))), { danger: true }),
      !self && item(t("Delete …"), "user-delete", attempt(async () => {
        if (user.used.desktops > 0) throw new Error(t("{name} owns desktops: delete those first.", { name }));
        await sure(t("Delete {name}?", { name }), t("Their account is gone for good."), t("Delete"), () => remove(at(user)));
        say(t("{name} is deleted.", { name }));
      }), { danger: true }),
    ],
  });
}

function condition(user) {
  const chips = [];
  if (user.disabled) chips.push(make("span", { class: "chip bad" }, t("disabled")));
  else if (user.must_change_password) chips.push(make("span", { class: "chip" }, t("has yet to choose a password")));
  if (user.second_factor) chips.push(make("span", { class: "chip good" }, t("second factor")));
  return make("span", { class: "chips" }, chips);
}

const used = (user) => (user.quota.desktops == null ? String(user.used.desktops) : t("{used} of {most}", { used: user.used.desktops, most: user.quota.desktops }));

export async function show({ root, signal }) {
  const view = table({
    name: "users", path: "/v1/users", signal, none: t("No user is called like this."), filters: [search("user-search", t("Search users"))],
    columns: [
      { title: t("Name"), cell: ({ name }) => make("b", {}, name) },
      { title: t("Role"), cell: ({ role, groups }) => make("span", {}, t(role), groups.length > 0 && make("span", { class: "quiet" }, ` · ${groups.join(", ")}`)) },
      { title: t("State"), cell: condition },
      { title: t("Desktops"), cell: used },
      { title: t("Since"), cell: ({ created }) => dayOf(created) },
      ...(may.rule ? [{ title: t("Actions"), quiet: true, cell: (user) => actions(user, () => view.load()) }] : []),
    ],
  });
  await view.load();
  root.append(title(t("Users"), may.rule && make("button", { type: "button", class: "primary", "data-testid": "user-invite", onclick: () => invite(() => view.load()) }, t("Invite …"))), view.element);
}
