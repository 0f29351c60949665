// Moments of a desktop that were kept, and other desktops that go on from them.

import { desktop as path, get, loggedOut, part, post, remove, when } from "./api.js";
import { show } from "./desktops.js";
import { confirm, form } from "./dialogs.js";
import { t } from "./text.js";

const dialog = part("snapshots-dialog");
const forkDialog = part("fork-dialog");
let shown; // the desktop whose moments are shown
let source; // what is forked: a desktop, and perhaps one of its snapshots

export function openFork(desktop, snapshot) {
  source = { desktop, snapshot };
  part("fork-title").textContent = snapshot
    ? t("Fork {name} as it was {time}", { name: desktop.name, time: when(snapshot.created) })
    : t("Fork {name}", { name: desktop.name });
  part("fork-error").textContent = "";
  forkDialog.showModal();
}

export async function openMoments(desktop) {
  shown = desktop;
  part("snapshots-title").textContent = t("Snapshots of {name}", { name: desktop.name });
  part("snapshots-error").textContent = "";
  await list();
  dialog.showModal();
}

const at = (snapshot, rest = "") => path(shown.id, `/snapshots/${snapshot.id}${rest}`);
const size = (bytes) => `${Math.max(1, Math.round(bytes / 2 ** 20))} MiB`;

async function list() {
  const snapshots = await get(path(shown.id, "/snapshots"));
  part("snapshot-list").replaceChildren(...snapshots.map(row));
  part("snapshots-empty").hidden = snapshots.length > 0;
}

function row(snapshot) {
  const element = document.getElementById("moment").content.firstElementChild.cloneNode(true);
  const title = snapshot.name || (snapshot.kind === "point" ? t("Restore point") : t("Snapshot"));
  part("snapshot-title", element).textContent = title;
  const what = snapshot.memory ? size(snapshot.bytes) : t("disks only");
  part("snapshot-facts", element).textContent = `${when(snapshot.created)} · ${what}`;
  if (snapshot.screen) {
    const image = element.querySelector("img");
    image.src = at(snapshot, "/screen");
    image.hidden = false;
  }
  const on = (name, work) =>
    part(name, element).addEventListener("click", async (event) => {
      const button = event.currentTarget;
      button.disabled = true;
      try {
        await work();
      } catch (error) {
        if (!loggedOut(error)) part("snapshots-error").textContent = error.message;
      } finally {
        button.disabled = false;
      }
    });
  on("snapshot-restore", async () => {
    const text = t("It becomes what it was {time}. What it is now is kept as a restore point.", { time: when(snapshot.created) });
    if (!(await confirm(t("Go back with {name}?", { name: shown.name }), text, t("Go back")))) return;
    show(await post(at(snapshot, "/restore")));
    dialog.close();
  });
  on("snapshot-fork", () => openFork(shown, snapshot));
  on("snapshot-remove", async () => {
    await remove(at(snapshot));
    await list();
  });
  return element;
}

part("snapshots-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name } = event.target.elements;
  const button = part("snapshot-create");
  button.disabled = true;
  part("snapshots-error").textContent = "";
  try {
    await post(path(shown.id, "/snapshots"), { name: name.value.trim() });
    name.value = "";
    await list();
  } catch (error) {
    if (!loggedOut(error)) part("snapshots-error").textContent = error.message;
  } finally {
    button.disabled = false;
  }
});
part("snapshots-close").addEventListener("click", () => dialog.close());

part("fork-cancel").addEventListener("click", () => forkDialog.close());
form(forkDialog, part("fork-error"), async ({ name }) => {
  const { desktop, snapshot } = source;
  const made = await post(path(desktop.id, "/fork"), { names: [name.value], start: true, ...(snapshot && { snapshot: snapshot.id }) });
  made.forEach(show);
  if (dialog.open) dialog.close();
});
