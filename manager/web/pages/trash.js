// Desktops that were deleted and can be recovered for a while.

import { list, post, remove, size, when } from "./api.js";
import { confirm, nameField, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { me } from "./me.js";
import { notice, say } from "./notices.js";
import { t } from "./text.js";

/** `there` is whether this service keeps what is deleted. */
export const trash = { there: false };

const at = ({ id }, rest = "") => `/v1/trash/${id}${rest}`;

async function recover(desktop, name) {
  const back = await post(at(desktop, "/recover"), name ? { name } : {});
  say(t("{name} is back.", { name: back?.name ?? desktop.name }));
}

/** Its name may be another's by now. */
function rename(desktop, load) {
  sheet({
    name: "recover", title: t("Recover {name}", { name: desktop.name }), lead: t("Another desktop has this name now."), action: t("Recover"), content: [nameField("recover-name")],
    work: async ({ name }) => {
      await recover(desktop, name.value);
      await load();
    },
  });
}

/** A part of the page of desktops: `load` fills it; it is not shown while there is nothing in it. */
export function trashSection() {
  const rows = make("ul", { class: "rows", "data-testid": "trash-list" });
  const summary = make("summary", { "data-testid": "trash" });
  const element = make("details", { class: "trash", hidden: true }, summary, rows);

  function row(desktop) {
    const { name, deleted, until, bytes } = desktop;
    const back = () => recover(desktop).then(load).catch((error) => (error.status === 409 ? rename(desktop, load) : notice(error)));
    const end = async () => {
      if (!(await confirm(t("Delete {name} for good?", { name }), t("Everything in it is lost. This cannot be undone."), t("Delete for good")))) return;
      await remove(at(desktop)).then(load).catch(notice);
    };
    return make("li", { "data-testid": "trashed", "data-name": name },
      make("span", { class: "what" }, make("b", {}, name), make("span", { class: "quiet" }, t("deleted {time}, kept until {until}, {size}", { time: when(deleted), until: when(until), size: size(bytes ?? 0) }))),
      make("button", { type: "button", "data-testid": "trash-recover", "aria-label": t("Recover {name}", { name }), onclick: back }, t("Recover")),
      make("button", { type: "button", class: "plain danger", "data-testid": "trash-remove", "aria-label": t("Delete {name} for good", { name }), onclick: end }, t("Delete for good")));
  }

  async function load() {
    const { entries } = await list("/v1/trash").catch((error) => {
      if (error.status !== 404) throw error;
      return { entries: null }; // a service that keeps nothing
    });
    trash.there = entries !== null;
    const own = (entries ?? []).filter(({ owner }) => owner === me.name);
    summary.textContent = t("Recently deleted: {count}", { count: own.length });
    rows.replaceChildren(...own.map(row));
    element.hidden = own.length === 0;
  }
  return { element, load };
}
