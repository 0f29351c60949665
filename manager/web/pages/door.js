// The door to a desktop, on its own host name: exchanges the ticket that the portal sent along for a cookie and goes in. Without a ticket it asks
// the portal's frame around it for one, or says where that is.

import { framed, portal, tellPortal, ticket } from "./portal.js";
import { t } from "./text.js";

const part = (name) => document.querySelector(`[data-testid="${name}"]`);

async function enter() {
  const headers = { "content-type": "application/json" };
  const answer = await fetch("/v1/opening", { method: "POST", headers, body: JSON.stringify({ ticket }) }).catch(() => null);
  return answer?.ok;
}

function say(words) {
  part("door-text").textContent = words;
  part("door-portal").href = portal;
  part("door").hidden = false;
}

if (typeof ticket === "string") {
  if (await enter()) location.reload();
  else say(t("The way in was used already, or has run out."));
} else if (framed) {
  tellPortal({ type: "closed" });
} else {
  say(t("Who had it open has logged out, what let them in has ended, or the browser keeps no cookies of this service."));
}
