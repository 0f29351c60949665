// The second factor: an authenticator that shows codes, and recovery codes for when it is lost.

import { post } from "./api.js";
import { copyable, field, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { me, meet } from "./me.js";
import { say } from "./notices.js";
import { t } from "./text.js";

const password = () => [
  make("input", { name: "username", autocomplete: "username", value: me.name, hidden: true }),
  field(t("Current password"), { name: "current", type: "password", autocomplete: "current-password", maxlength: 256, required: true, "data-testid": "factor-password" }),
];

/** First the password, then the key, then a code of it, then the recovery codes. */
function begin(changed) {
  sheet({
    name: "factor", title: t("Use an authenticator"), lead: t("At each login you will also enter a code that an app on your phone shows."), action: t("Go on"), content: password(),
    work: async ({ current }) => showKey(await post("/v1/session/factor", { password: current.value }), changed),
  });
}

function showKey({ key, qr }, changed) {
  const picture = make("img", { class: "qr", alt: t("QR code for your authenticator"), src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(qr)}`, "data-testid": "factor-qr" });
  sheet({
    name: "factor-key", title: t("Scan this with your authenticator"), action: t("Confirm"),
    content: [
      picture,
      make("details", {}, make("summary", {}, t("It cannot be scanned?")), make("p", { class: "quiet" }, t("Enter this key in your authenticator:")), copyable(key, "factor-key")),
      field(t("The code that it shows now"), { name: "code", inputmode: "numeric", autocomplete: "one-time-code", pattern: "[0-9]{6}", maxlength: 6, required: true, "data-testid": "factor-code" }),
    ],
    work: async ({ code }) => {
      const { codes } = await post("/v1/session/factor/confirm", { code: code.value });
      await changed();
      showCodes(codes);
    },
  });
}

function showCodes(codes) {
  const text = codes.join("\n");
  const file = URL.createObjectURL(new Blob([`Yunju · ${me.name}\n\n${text}\n`], { type: "text/plain" }));
  const { dialog } = sheet({
    name: "recovery", title: t("Keep these recovery codes"), lead: t("Each lets you in once if you lose your authenticator. They are shown only now."), close: t("I have kept them"),
    content: [
      make("ol", { class: "codes", "data-testid": "recovery-codes" }, codes.map((code) => make("li", {}, make("code", {}, code)))),
      make("a", { class: "button", href: file, download: "yunju-recovery-codes.txt" }, t("Save as a file")),
    ],
  });
  dialog.addEventListener("close", () => URL.revokeObjectURL(file));
}

function end(changed) {
  sheet({
    name: "factor-remove", title: t("Use the authenticator no longer"), lead: t("Then your password alone lets you in."), action: t("Remove"), danger: true, content: password(),
    work: async ({ current }) => {
      await post("/v1/session/factor/remove", { password: current.value });
      await changed();
      say(t("Your password alone lets you in now."));
    },
  });
}

export function factorSection(section) {
  const place = make("div", { class: "state-row" });
  const element = section("factor", t("Second factor"), t("Who knows your password alone cannot log in."), place);
  const draw = () => place.replaceChildren(
    make("span", { class: "state", "data-state": me.second_factor ? "running" : "stopped", "data-testid": "factor-state" }, me.second_factor ? t("on") : t("off")),
    me.second_factor ? make("button", { type: "button", class: "danger", "data-testid": "factor-end", onclick: () => end(changed) }, t("Remove …"))
      : make("button", { type: "button", "data-testid": "factor-begin", onclick: () => begin(changed) }, t("Use an authenticator …")));
  async function changed() {
    await meet();
    draw();
  }
  draw();
  return element;
}
