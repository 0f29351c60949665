// What can be done with the whole desktop: sleep, a moment kept, back, restart, off.

import { when } from "./api.js";
import { act, notice } from "./connection.js";
import { confirm } from "./dialogs.js";
import { make } from "./dom.js";
import { ICONS } from "./icons.js";
import { action } from "./panel.js";
import { rights } from "./rights.js";
import { session } from "./session.js";
import { t } from "./text.js";
import { add, leave } from "./toolbar.js";

const tool = add({
  name: "power",
  icon: ICONS.power,
  label: t("Power"),
  order: 70,
  panel(panel) {
    const name = () => session.desktop?.name ?? session.reference;
    const entry = (...what) => {
      const press = what.pop();
      return action(...what, () => {
        leave();
        press();
      });
    };
    const suspend = entry("power-suspend", ICONS.moon, t("Suspend"), t("It sleeps until you come back, and goes on where it was"), () =>
      act("/suspend", { state: "suspending", title: t("Falling asleep …"), failure: t("It did not fall asleep.") }));
    const keep = entry("power-keep", ICONS.camera, t("Keep this moment"), t("To go back to it later, or to fork it"), async () => {
      if (await act("/snapshots", { body: { name: "" }, failure: t("The moment was not kept.") })) notice(t("Kept. All moments are with your desktops."), "good");
    });
    const undo = entry("power-undo", ICONS.undo, t("Undo"), "", async () => {
      const time = when(session.desktop.restore_point);
      const text = t("It becomes what it was {time}. What it is now is kept: undo again to come back.", { time });
      if (!(await confirm(t("Undo {name}?", { name: name() }), text, t("Undo")))) return session.focus();
      act("/undo", { state: "starting", title: t("Going back …"), failure: t("It did not go back.") });
    });
    const restart = entry("power-restart", ICONS.restart, t("Restart"), "", async () => {
      const text = t("What is open in it is lost.");
      if (!(await confirm(t("Restart {name}?", { name: name() }), text, t("Restart")))) return session.focus();
      act("/restart", { state: "starting", title: t("Restarting …"), failure: t("It did not restart.") });
    });
    const stop = entry("power-stop", ICONS.power, t("Shut down"), "", async () => {
      const text = t("What is open in it is lost. Suspend it to go on from here later.");
      if (!(await confirm(t("Shut down {name}?", { name: name() }), text, t("Shut down")))) return session.focus();
      act("/stop", { state: "stopping", title: t("Shutting down …"), failure: t("It did not shut down."), body: { force: false } });
    });
    panel.append(make("div", { class: "actions" }, suspend, keep, undo, restart, stop));
    panel.addEventListener("open", () => {
      const point = session.desktop?.restore_point;
      undo.hidden = !point;
      if (point) undo.querySelector(".quiet")?.remove();
      if (point) undo.lastChild.append(make("span", { class: "quiet" }, t("back to {time}", { time: when(point) })));
    });
  },
});

tool.hidden = !rights.own;
const usable = () => (tool.disabled = !session.connected);
session.addEventListener("state", usable);
usable();
