// Moments of a desktop that were kept, and other desktops that go on from them.

import { desktop as path, get, loggedOut, part, remove, size, when } from "./api.js";
import { confirm, nameField, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { say } from "./notices.js";
import { work } from "./operations.js";
import { t } from "./text.js";

export function openFork(desktop, snapshot) {
  const { name } = desktop;
  return sheet({
    name: "fork", title: snapshot ? t("Fork {name} as it was {time}", { name, time: when(snapshot.created) }) : t("Fork {name}", { name }),
    lead: t("A second desktop that goes on from the same moment, with files of its own."),
    content: [nameField("fork-name")], action: t("Fork and start"),
    work: async ({ name: chosen }) => {
      await work(path(desktop.id, "/fork"), { names: [chosen.value], start: true, ...(snapshot && { snapshot: snapshot.id }) });
      part("snapshots-dialog")?.close();
    },
  });
}

export async function openMoments(desktop) {
  const at = (snapshot, rest = "") => path(desktop.id, `/snapshots/${snapshot.id}${rest}`);
  const kept = await get(path(desktop.id, "/snapshots"));
  const list = make("ul", { class: "moments", "data-testid": "snapshot-list" });
  const none = make("p", { class: "quiet", "data-testid": "snapshots-empty" }, t("Nothing kept yet. While you work, a restore point is taken now and then."));
  const name = make("input", { name: "name", maxlength: 60, autocomplete: "off", placeholder: t("Name, if you like"), "aria-label": t("Name of the new snapshot"), "data-testid": "snapshot-name" });
  const keep = make("button", { type: "submit", class: "primary", "data-testid": "snapshot-create" }, t("Keep this moment"));

  const { dialog, form, error } = sheet({ name: "snapshots", wide: true, title: t("Snapshots of {name}", { name: desktop.name }), content: [make("div", { class: "keep" }, name, keep), list, none], close: t("Close") });
  part("snapshots-cancel", dialog).dataset.testid = "snapshots-close";

  function show(snapshots) {
    list.replaceChildren(...snapshots.map(row));
    none.hidden = snapshots.length > 0;
  }
  const again = async () => show(await get(path(desktop.id, "/snapshots")));

  async function attempt(button, what) {
    error.textContent = "";
    button.disabled = true;
    try {
      await what();
    } catch (refused) {
      if (!loggedOut(refused)) error.textContent = refused.message;
    } finally {
      button.disabled = false;
    }
  }

  function row(snapshot) {
    const title = snapshot.name || (snapshot.kind === "point" ? t("Restore point") : t("Snapshot"));
    const what = snapshot.memory ? size(snapshot.bytes) : t("disks only");
    const button = (name, words, look, what) =>
      make("button", { type: "button", class: look, "data-testid": `snapshot-${name}`, "aria-label": `${words}: ${title}, ${when(snapshot.created)}`, onclick: ({ currentTarget }) => attempt(currentTarget, what) }, words);
    return make("li", { "data-testid": "snapshot" },
      make("span", { class: "thumb" }, snapshot.screen && make("img", { alt: "", loading: "lazy", src: at(snapshot, "/screen") })),
      make("span", { class: "what" }, make("b", { "data-testid": "snapshot-title" }, title), make("span", { class: "quiet", "data-testid": "snapshot-facts" }, `${when(snapshot.created)} · ${what}`)),
      button("restore", t("Go back"), "", () => restore(snapshot)),
      button("fork", t("Fork"), "plain", () => openFork(desktop, snapshot)),
      button("remove", t("Remove"), "plain danger", async () => {
        if (!(await confirm(t("Remove {name}?", { name: title }), t("This moment cannot be gone back to any more."), t("Remove")))) return;
        await remove(at(snapshot));
        await again();
      }));
  }

  async function restore(snapshot) {
    const text = t("It becomes what it was {time}. What it is now is kept as a restore point.", { time: when(snapshot.created) });
    if (!(await confirm(t("Go back with {name}?", { name: desktop.name }), text, t("Go back")))) return;
    await work(at(snapshot, "/restore"));
    dialog.close();
    say(t("{name} is what it was {time}.", { name: desktop.name, time: when(snapshot.created) }));
  }

  form.addEventListener("submit", () =>
    attempt(keep, async () => {
      await work(path(desktop.id, "/snapshots"), { name: name.value.trim() });
      name.value = "";
      await again();
    }));
  show(kept);
}
