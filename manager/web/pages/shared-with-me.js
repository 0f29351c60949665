// Desktops that others share with one.

import { list, post, when } from "./api.js";
import { nameField, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { me } from "./me.js";
import { notice } from "./notices.js";
import { t } from "./text.js";

/** Makes a desktop of one's own that goes on from one that is shared as a copy. */
function copy(share, made) {
  sheet({
    name: "copy", title: t("Copy {name}", { name: share.desktop }), lead: t("A desktop of your own that goes on from where it is."), action: t("Copy"),
    content: [nameField("copy-name")],
    work: async ({ name }) => {
      const [desktop] = await post("/v1/shares/copy", { share: share.id, name: name.value });
      made(desktop);
    },
  });
}

/** A part of the page of desktops: `load` fills it; it is not shown while there is nothing in it. */
export function sharedSection(made) {
  const rows = make("ul", { class: "rows", "data-testid": "shared-list" });
  const element = make("section", { class: "panel shared", "aria-labelledby": "shared-heading", hidden: true, "data-testid": "shared" }, make("h2", { id: "shared-heading" }, t("Shared with you")), rows);

  function row(share) {
    const { desktop, owner, kind, expires } = share;
    const what = { view: t("to look at"), control: t("to work in"), copy: t("to copy") }[kind];
    return make("li", { "data-testid": "shared-desktop", "data-name": desktop },
      make("span", { class: "what" }, make("b", {}, desktop), make("span", { class: "quiet" }, [t("by {name}", { name: owner }), what, t("until {day}", { day: when(expires) })].join(" · "))),
      kind === "copy" ? make("button", { type: "button", "data-testid": "shared-copy", onclick: () => copy(share, made) }, t("Copy …"))
        : make("a", { class: "button", href: `/desktops/${encodeURIComponent(desktop)}`, "data-testid": "shared-open", "aria-label": t("Open {name}", { name: desktop }) }, t("Open")));
  }

  async function load() {
    const { entries } = await list("/v1/shares").catch((error) => {
      if (error.status !== 404) notice(error);
      return { entries: [] };
    });
    const theirs = entries.filter(({ owner }) => owner !== me.name);
    rows.replaceChildren(...theirs.map(row));
    element.hidden = theirs.length === 0;
  }
  return { element, load };
}
