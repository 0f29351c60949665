// One desktop: its screen, and what to say while there is none.

import RFB from "/assets/novnc/core/rfb.js";
import { desktop as path, get, loggedOut, part, post, sleep } from "./api.js";

const reference = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const socket = `${location.protocol.replace("http", "ws")}//${location.host}/desktops/${encodeURIComponent(reference)}/ws`;

let rfb = null;
let matchWindow = true;
let wake = () => {};
// whether opening the screen may wake a desktop that sleeps: when its page is opened, or somebody asks
let mayWake = true;

/** Says how things are: in the toolbar, and over the screen unless it is there to be seen. */
function tell(state, title = "", text = "", button = "") {
  const element = part("connection-state");
  element.dataset.state = state;
  element.textContent = state;
  part("veil").hidden = state === "connected";
  part("veil-title").textContent = title;
  part("veil-text").textContent = text;
  part("veil-start").hidden = !button;
  part("veil-start").textContent = button;
  part("veil-spinner").hidden = ["stopped", "failed", "missing", "suspended"].includes(state);
  part("toolbar-suspend").disabled = state !== "connected";
}

function fit() {
  if (!rfb) return;
  // scaled in either case, for a guest that does not follow the window
  rfb.scaleViewport = true;
  rfb.resizeSession = matchWindow;
}

/** Shows the screen until the connection ends; whether there was one. */
function connect(name) {
  return new Promise((ended) => {
    let connected = false;
    rfb = new RFB(part("desktop-screen"), socket, { shared: true });
    rfb.background = "#0b0f12";
    fit();
    rfb.addEventListener("connect", () => {
      connected = true;
      mayWake = false;
      tell("connected");
      document.title = `${name} · Yunju`;
      rfb.focus();
    });
    rfb.addEventListener("disconnect", () => {
      rfb = null;
      ended(connected);
    });
  });
}

/** Waits, unless something happened that makes waiting pointless. */
const pause = (milliseconds) => Promise.race([sleep(milliseconds), new Promise((done) => (wake = done))]);

async function look() {
  const desktop = await get(path(reference));
  part("desktop-name").textContent = desktop.name;
  document.title = `${desktop.name} · Yunju`;
  return desktop;
}

/** One round: looks how the desktop is, shows its screen if it can; how long to wait before the next. */
async function round(failures) {
  const desktop = await look();
  switch (desktop.state) {
    case "running": {
      if (failures === 0) tell("connecting", "Connecting …");
      const connected = await connect(desktop.name);
      const lost = connected ? 1 : failures + 1;
      tell("reconnecting", "Reconnecting …", "The connection to the desktop was lost.");
      return { failures: lost, wait: Math.min(250 * 2 ** lost, 5000) };
    }
    case "suspended": {
      const reason = desktop.ended?.failed ? desktop.ended.reason : "";
      if (mayWake && !reason) {
        tell("waking", `${desktop.name} is waking up …`);
        // the connection itself wakes it; once is enough if it cannot
        const connected = await connect(desktop.name);
        mayWake = false;
        return { failures: 0, wait: connected ? 500 : 1000 };
      }
      const text = reason || "It goes on exactly where it was.";
      tell("suspended", `${desktop.name} is asleep`, text, "Resume");
      return { failures: 0, wait: 2000 };
    }
    case "suspending":
      tell("suspending", `${desktop.name} is falling asleep …`);
      return { failures: 0, wait: 500 };
    case "starting":
      tell("starting", `${desktop.name} is starting …`);
      return { failures: 0, wait: 500 };
    case "stopping":
      tell("stopping", `${desktop.name} is shutting down …`);
      return { failures: 0, wait: 1000 };
    default: {
      const failed = desktop.ended?.failed === true;
      tell(failed ? "failed" : "stopped", `${desktop.name} is ${failed ? "not running" : "stopped"}`, desktop.ended?.reason ?? "", "Start");
      return { failures: 0, wait: 2000 };
    }
  }
}

async function run() {
  let failures = 0;
  for (;;) {
    let wait = 2000;
    try {
      ({ failures, wait } = await round(failures));
    } catch (error) {
      if (loggedOut(error)) return;
      failures += 1;
      if (error.status === 404) {
        tell("missing", "No such desktop", error.message);
        return;
      }
      tell("reconnecting", "Reconnecting …", error.message);
    }
    await pause(wait);
  }
}

part("veil-start").addEventListener("click", async () => {
  tell("starting", part("veil-start").textContent === "Resume" ? "Waking …" : "Starting …");
  try {
    await post(path(reference, "/start"));
  } catch (error) {
    if (!loggedOut(error)) tell("failed", "It did not start", error.message, "Start");
    return;
  }
  wake();
});

part("toolbar-resize").addEventListener("click", (event) => {
  matchWindow = !matchWindow;
  event.currentTarget.setAttribute("aria-pressed", String(matchWindow));
  fit();
  rfb?.focus();
});

part("toolbar-ctrl-alt-del").addEventListener("click", () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});

part("toolbar-suspend").addEventListener("click", async () => {
  tell("suspending", "Falling asleep …");
  try {
    await post(path(reference, "/suspend"));
  } catch (error) {
    if (!loggedOut(error)) tell("failed", "It did not fall asleep", error.message);
  }
  wake();
});

part("toolbar-fullscreen").addEventListener("click", async () => {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await document.body.requestFullscreen({ navigationUI: "hide" }).catch(() => {});
  rfb?.focus();
});

addEventListener("online", () => wake());
document.addEventListener("visibilitychange", () => document.hidden || wake());

await run();
