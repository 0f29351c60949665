// Where the link of a share leads: on to the desktop, or to a copy of it. The secret behind the `#` is posted and never sent otherwise.

import { part, post } from "./api.js";
import { t } from "./text.js";

const secret = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

function say(title, text) {
  part("shared-title").textContent = title;
  part("shared-text").textContent = text;
}

async function copy(desktop, owner) {
  const user = await fetch("/v1/session").then((answer) => (answer.ok ? answer.json() : null));
  say(t("A copy of {name}", { name: desktop }), t("{owner} lets you go on from this desktop with one of your own.", { owner }));
  if (!user) return say(t("A copy of {name}", { name: desktop }), t("A copy belongs to an account: log in on the portal, then follow the link once more."));
  const form = part("shared-copy");
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    part("shared-submit").disabled = true;
    try {
      const [made] = await post("/v1/shares/copy", { secret, name: form.elements.name.value });
      location.assign(`/desktops/${encodeURIComponent(made.name)}`);
    } catch (error) {
      part("shared-text").textContent = error.message;
      part("shared-submit").disabled = false;
    }
  });
}

try {
  const { desktop, owner, kind, door } = await post("/v1/shares/open", { secret });
  if (kind === "copy") await copy(desktop, owner);
  else {
    const address = new URL(door.url);
    address.hash = encodeURIComponent(JSON.stringify({ ticket: door.ticket, kept: {} }));
    location.replace(address);
  }
} catch (error) {
  say(t("This link leads nowhere"), error.message);
}
