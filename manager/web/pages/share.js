// Sharing: with whom the desktop is shared, links that are made and taken back, and who looks right now.

import { desktop as path, get, part, post, remove, when } from "./api.js";
import { make } from "./dom.js";
import { ICONS } from "./icons.js";
import { choice, group, toggle } from "./panel.js";
import { apart, framed, portal, tellPortal } from "./portal.js";
import { rights } from "./rights.js";
import { session } from "./session.js";
import { t } from "./text.js";
import { add } from "./toolbar.js";

/** Who looks is asked this often, in milliseconds. */
const EVERY = 3000;

const wish = { kind: "view", clipboard: false, sound: true, seconds: 86_400 };
const said = { watchers: [] };

const KINDS = () => [
  ["view", t("Look"), t("They see the screen.")],
  ["control", t("Work"), t("They have keys and pointer too.")],
  ["copy", t("Copy"), t("They get a desktop of their own that goes on from this one. Everything in it is theirs, too: files, and what you are logged in to.")],
];

const BY = { owner: () => t("owner"), admin: () => t("admin"), share: () => t("by a share"), local: () => t("on the host") };

function row(share) {
  const kind = KINDS().find(([kind]) => kind === share.kind)?.[1];
  const facts = `${kind} · ${t("until {time}", { time: when(share.expires) })}`;
  const end = make("button", {
    type: "button", "data-testid": "share-end",
    async onclick() {
      await remove(`/v1/shares/${share.id}`).catch(explain);
      await list();
    },
  }, t("End"));
  return make("li", { "data-testid": "share-row", "data-id": share.id }, make("span", {}, share.user ?? t("Who has the link"), make("span", { class: "quiet" }, facts)), end);
}

const explain = (error) => (said.text.textContent = error.message);

async function list() {
  try {
    const shares = await get(path(session.reference, "/shares"));
    said.shares.replaceChildren(...shares.map(row));
  } catch (error) {
    explain(error);
  }
}

async function share() {
  said.text.textContent = "";
  said.link.hidden = true;
  const user = said.user.value.trim();
  try {
    const made = await post(path(session.reference, "/shares"), { ...wish, ...(user && { user }) });
    said.user.value = "";
    if (made.url) {
      said.link.value = made.url;
      said.link.hidden = false;
      said.link.select();
      await navigator.clipboard?.writeText(made.url).then(() => (said.text.textContent = t("The link is in the clipboard. It is shown only now.")), () => {});
    } else {
      said.text.textContent = t("{name} finds it among their desktops.", { name: made.user });
    }
    await list();
  } catch (error) {
    explain(error);
  }
}

/** Shows who else looks: in the panel, on the button, and over the screen. */
function show(watchers) {
  said.watchers = watchers;
  // this page itself is one of them
  const own = watchers.findIndex(({ name, by }) => name === rights.name && by !== "share" && by !== "local");
  const others = watchers.filter((_, place) => place !== own);
  tool.badge = others.length ? String(others.length) : "";
  chip.hidden = others.length === 0;
  chip.textContent = t("Looking on: {names}", { names: others.map(({ name }) => name).join(", ") });
  said.who?.replaceChildren(...watchers.map(({ name, by, since, input }) =>
    make("li", { "data-testid": "share-watcher", "data-name": name }, make("span", {}, name, make("span", { class: "quiet" }, `${BY[by]()} · ${input ? t("works") : t("looks")} · ${t("since {time}", { time: when(since) })}`)))));
}

const chip = make("p", { class: "watched", role: "status", "data-testid": "watched", hidden: true });

const tool = add({
  name: "share",
  icon: ICONS.share,
  label: t("Share"),
  order: 55,
  panel(panel) {
    said.user = make("input", { class: "whom", maxlength: 32, autocomplete: "off", "data-testid": "share-user", placeholder: t("A user's name, or nobody: a link"), "aria-label": t("A user's name, or nobody: a link") });
    said.text = make("p", { class: "quiet", role: "status", "data-testid": "share-said" });
    said.link = make("input", { class: "whom", readonly: true, hidden: true, "data-testid": "share-link", "aria-label": t("Link") });
    said.shares = make("ul", { class: "shares" });
    said.who = make("ul", { class: "shares" });
    const ends = [["3600", t("1 hour"), ""], ["86400", t("1 day"), ""], ["604800", t("1 week"), ""]];
    panel.append(
      group("",
        choice("share-kind", t("Share"), KINDS(), wish.kind, (kind) => (wish.kind = kind)),
        choice("share-for", t("For"), ends, String(wish.seconds), (seconds) => (wish.seconds = Number(seconds))),
        toggle("share-clipboard", t("Clipboard"), wish.clipboard, (on) => (wish.clipboard = on)),
        toggle("share-sound", t("Sound"), wish.sound, (on) => (wish.sound = on)),
        said.user,
        make("div", { class: "keys" }, make("button", { type: "button", class: "primary", "data-testid": "share-make", onclick: share }, t("Share"))),
        said.link, said.text),
      group(t("Shared with"), said.shares),
      group(t("Looking now"), said.who),
    );
    panel.addEventListener("open", () => {
      list();
      look();
    });
  },
});

async function look() {
  if (document.hidden || !session.connected) return;
  await get(path(session.reference, "/viewers")).then(show, () => {});
}

// without the service around it this page has nobody to share with
tool.hidden = !rights.own || !apart;
if (rights.own && apart) {
  part("stage").append(chip);
  session.addEventListener("connect", look);
  setInterval(look, EVERY);
}

// the way home leads out of the frame, which this page cannot leave by itself
const home = part("toolbar-home");
home.href = portal;
home.hidden = apart && rights.name === "guest" && !rights.own;
home.addEventListener("click", (event) => {
  if (!framed) return;
  event.preventDefault();
  tellPortal({ type: "home" });
});
