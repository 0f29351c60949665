// The whole screen, with all keys where the browser can give them away.

import { ICONS } from "./icons.js";
import { t } from "./text.js";
import { add } from "./toolbar.js";

const tool = add({
  name: "fullscreen",
  icon: ICONS.fullscreen,
  label: t("Full screen"),
  order: 90,
  async press() {
    if (document.fullscreenElement) return document.exitFullscreen();
    await document.documentElement.requestFullscreen({ navigationUI: "hide" }).catch(() => {});
  },
});
tool.hidden = !document.fullscreenEnabled;

document.addEventListener("fullscreenchange", () => {
  const on = document.fullscreenElement !== null;
  tool.pressed = on;
  tool.icon = on ? ICONS.leave : ICONS.fullscreen;
  tool.label = on ? t("Leave full screen") : t("Full screen");
  // Alt+Tab, Super and the like go to the desktop; Escape, held for a while, still leads out
  if (on) navigator.keyboard?.lock?.().catch(() => {});
  else navigator.keyboard?.unlock?.();
});
