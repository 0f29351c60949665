// Groups: who is in them, and what role they give.

import { get, post, put, remove } from "./api.js";
import { title } from "./admin.js";
import { choice, confirm, field, nameField, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { may } from "./me.js";
import { notice } from "./notices.js";
import { changeQuota } from "./quota.js";
import { t } from "./text.js";

const at = (group, rest = "") => `/v1/groups/${encodeURIComponent(group.name)}${rest}`;

function add(load) {
  const roles = [["", t("none")], ["user", t("user")], ["developer", t("developer")], ["auditor", t("auditor")], ["admin", t("admin")]];
  sheet({
    name: "group", title: t("New group"), action: t("Make it"),
    content: [nameField("group-name"), field(t("Role that it gives"), choice(roles, "", { name: "role", "data-testid": "group-role" }), t("In addition to each member's own"))],
    work: async ({ name, role }) => {
      await post("/v1/groups", { name: name.value, ...(role.value && { role: role.value }) });
      await load();
    },
  });
}

async function join(group, load) {
  const users = (await get("/v1/users")).map(({ name }) => name).filter((name) => !group.members.includes(name));
  sheet({
    name: "join", title: t("Put somebody into {name}", { name: group.name }), action: t("Add"),
    content: [field(t("User"), { name: "user", list: "join-users", required: true, autocapitalize: "none", spellcheck: "false", "data-testid": "join-user" }), make("datalist", { id: "join-users" }, users.map((name) => make("option", { value: name })))],
    work: async ({ user }) => {
      await put(at(group, `/members/${encodeURIComponent(user.value.trim())}`));
      await load();
    },
  });
}

function panel(group, load) {
  const id = `group-${group.name}`;
  const leave = async (name) => {
    await remove(at(group, `/members/${encodeURIComponent(name)}`));
    await load();
  };
  const members = group.members.map((name) => make("li", { class: "chip" }, name,
    may.rule && make("button", { type: "button", class: "plain", "aria-label": t("Take {name} out", { name }), "data-testid": "group-leave", onclick: () => leave(name).catch(notice) }, "×")));
  return make("section", { class: "panel", "aria-labelledby": id, "data-testid": "group", "data-name": group.name },
    make("div", { class: "head" }, make("h2", { id }, group.name), group.role && make("span", { class: "chip" }, t(group.role))),
    make("ul", { class: "chips", "aria-label": t("Members") }, members.length ? members : make("li", { class: "quiet" }, t("Nobody is in it."))),
    may.rule && make("div", { class: "row" },
      group.quota && make("button", { type: "button", "data-testid": "group-quota", onclick: () => changeQuota({ ...group, lead: t("Of all desktops of its members together."), at: at(group) }, load) }, t("Quota …")),
      make("button", { type: "button", "data-testid": "group-join", onclick: () => join(group, load).catch(notice) }, t("Add somebody …")),
      make("button", { type: "button", class: "plain danger", "data-testid": "group-delete", onclick: async () => {
        if (!(await confirm(t("Delete {name}?", { name: group.name }), t("Its members stay, without the role that it gives them."), t("Delete")))) return;
        await remove(at(group)).then(load).catch(notice);
      } }, t("Delete …"))));
}

export async function show({ root, signal }) {
  const panels = make("div", { class: "panels", "data-testid": "groups" });
  const none = make("p", { class: "quiet nothing", role: "status" }, t("There is no group yet. A group gives its members a role together."));
  async function load() {
    const groups = await get("/v1/groups");
    if (signal.aborted) return;
    panels.replaceChildren(...groups.map((group) => panel(group, load)));
    none.hidden = groups.length > 0;
  }
  await load();
  root.append(title(t("Groups"), may.rule && make("button", { type: "button", class: "primary", "data-testid": "group-new", onclick: () => add(load) }, t("New group …"))), none, panels);
}
