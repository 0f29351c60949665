// Sound: heard from the first click or key on, as loud as somebody likes; the microphone is off until they want it.

import { make } from "./dom.js";
import { ICONS } from "./icons.js";
import { group, toggle } from "./panel.js";
import { Player } from "./player.js";
import { session } from "./session.js";
import { settings } from "./settings.js";
import { side } from "./side.js";
import { t } from "./text.js";
import { add } from "./toolbar.js";

/** The sound of this page's desktop. */
export const player = new Player(() => session.socket("/audio"));

const tool = add({
  name: "sound",
  icon: ICONS.sound,
  label: t("Sound"),
  order: 40,
  panel(panel) {
    const volume = make("input", { type: "range", class: "volume", min: 0, max: 100, value: settings.volume, "data-testid": "sound-volume", "aria-label": t("Volume") });
    volume.addEventListener("input", () => {
      settings.volume = volume.valueAsNumber;
      settings.sound = true;
    });
    const on = toggle("sound-on", t("Sound"), settings.sound, (wanted) => (settings.sound = wanted));
    settings.on("sound", (wanted) => (on.querySelector("input").checked = wanted));
    const microphone = toggle("sound-microphone", t("Microphone"), player.speaks, speak, t("The desktop hears it while this page is open."));
    const refusal = make("p", { class: "quiet", role: "status", "data-testid": "sound-refusal" });
    player.addEventListener("microphone", () => (microphone.querySelector("input").checked = player.speaks));
    panel.append(group(t("Sound"), on, volume, ...(navigator.mediaDevices && side.may.input ? [microphone, refusal] : [])));

    async function speak(wanted) {
      refusal.textContent = "";
      try {
        await player.speak(wanted);
      } catch (error) {
        microphone.querySelector("input").checked = false;
        refusal.textContent = error.name === "NotFoundError" ? t("There is no microphone.") : t("The browser does not allow it.");
      }
    }
  },
});

// browsers play samples for pages that came safely only: by https, or from this machine
const able = "AudioWorkletNode" in globalThis;
tool.hidden = !able;
side.addEventListener("able", apply);

function apply() {
  if (!able) return;
  tool.hidden = !side.may.sound;
  player.volume = settings.sound ? settings.volume / 100 : 0;
  tool.icon = settings.sound && settings.volume > 0 ? ICONS.sound : ICONS.muted;
  // what is not heard is not sent
  if (session.connected && side.may.sound && (settings.sound || player.speaks)) player.connect();
  else player.close();
}

settings.on("sound", apply);
settings.on("volume", apply);
session.addEventListener("state", apply);
player.addEventListener("microphone", () => {
  tool.badge = player.speaks ? "●" : "";
  tool.label = player.speaks ? t("Sound, microphone on") : t("Sound");
  apply();
});
apply();

// Browsers let a page make noise only once somebody did something on it.
const GESTURES = ["pointerdown", "pointerup", "keydown", "touchend"];
function start() {
  if (!navigator.userActivation?.isActive && navigator.userActivation) return;
  for (const gesture of GESTURES) removeEventListener(gesture, start, true);
  player.start().catch((error) => console.warn(`no sound: ${error}`));
}
if (able) for (const gesture of GESTURES) addEventListener(gesture, start, true);
