// Shows the screen whenever there can be one, and says in words what is the case while there is none.

import RFB from "/assets/novnc/core/rfb.js";
import { desktop as path, get, loggedOut, part, post, sleep } from "./api.js";
import { Link } from "./link.js";
import { rights } from "./rights.js";
import { session } from "./session.js";
import { t, told } from "./text.js";

/** After a connection that was lost, tries come this far apart, in milliseconds; the last again and again. */
const WAITS = [250, 500, 1000, 2000, 4000, 8000, 15_000];

/** A connection that held so long, in milliseconds, was a good one. */
const GOOD = 5000;

const LOST = {
  silent: "The desktop has not answered for a while.",
  cut: "The connection to the desktop was lost.",
  closed: "The desktop runs, but its screen cannot be reached.",
};

let wake = () => {};
// whether opening the screen may wake a desktop that sleeps: when its page is opened, or somebody asks
let mayWake = true;
let lost = LOST.cut;
let still = null;

/** Says how things are: in the toolbar, and over the screen unless it is there to be seen. */
export function tell(state, title = "", text = "", button = "") {
  const changed = session.state !== state;
  session.state = state;
  const element = part("connection-state");
  element.dataset.state = state;
  element.textContent = t(state);
  part("veil").hidden = state === "connected";
  part("veil").dataset.over = String(state === "reconnecting" && still !== null);
  part("veil-title").textContent = title;
  part("veil-text").textContent = text;
  const offered = button && (rights.own || state === "reconnecting" || (state === "suspended" && rights.input));
  part("veil-start").hidden = !offered;
  part("veil-start").textContent = button;
  part("veil-spinner").hidden = ["stopped", "failed", "missing", "suspended"].includes(state);
  if (changed) session.tell("state");
}

/** The last picture stays, without life, until there is another. */
function freeze(canvas) {
  thaw();
  if (!canvas.width || !canvas.height) return;
  still = canvas;
  still.removeAttribute("style");
  still.removeAttribute("tabindex");
  part("desktop-still").append(still);
}

function thaw() {
  still?.remove();
  still = null;
}

/** Shows the screen until the connection ends; for how long there was one, in milliseconds. */
function connect() {
  return new Promise((ended) => {
    let since = null;
    const link = new Link(session.socket());
    const rfb = new RFB(part("desktop-screen"), link, { shared: true });
    const canvas = part("desktop-screen").querySelector("canvas");
    rfb.background = "transparent";
    Object.assign(session, { rfb, link });
    session.tell("begin");
    link.addEventListener("picture", () => {
      thaw();
      session.tell("picture");
    });
    rfb.addEventListener("connect", () => {
      since = performance.now();
      mayWake = false;
      tell("connected");
      session.tell("connect");
      session.focus();
    });
    rfb.addEventListener("disconnect", () => {
      if (since !== null && link.counts.updates > 0) freeze(canvas);
      lost = link.reason === "silent" ? LOST.silent : since === null ? LOST.closed : LOST.cut;
      Object.assign(session, { rfb: null, link: null });
      session.tell("disconnect");
      ended(since === null ? 0 : performance.now() - since);
    });
  });
}

/** Waits, unless something happened that makes waiting pointless. */
const pause = (milliseconds) => Promise.race([sleep(milliseconds), new Promise((done) => (wake = done))]);

/** Does not wait any longer. */
export const hurry = () => wake();

async function look() {
  session.desktop = await get(path(session.reference));
  part("desktop-name").textContent = session.desktop.name;
  document.title = `${session.desktop.name} · Yunju`;
  return session.desktop;
}

/** Waits before the next try, and says for how long. */
async function backOff(failures, why) {
  const usual = WAITS[Math.min(failures, WAITS.length) - 1];
  const until = performance.now() + usual * (0.85 + 0.3 * Math.random());
  for (;;) {
    const left = until - performance.now();
    if (left <= 0) return;
    if (!navigator.onLine) {
      tell("reconnecting", t("This device is offline"), t("The desktop comes back as soon as the network does."), t("Try now"));
    } else if (usual < 2000) {
      tell("reconnecting", t("Reconnecting …"), why);
    } else {
      const text = t("Next try in {seconds} s.", { seconds: Math.ceil(left / 1000) });
      tell("reconnecting", t("Reconnecting …"), `${why} ${text}`, t("Try now"));
    }
    const hurried = await Promise.race([sleep(Math.min(left, 1000)), new Promise((done) => (wake = () => done(true)))]);
    if (hurried) return;
  }
}

/** One round: looks how the desktop is, shows its screen if it can; how many rounds in a row have failed. */
async function round(failures) {
  const desktop = await look();
  const { name } = desktop;
  switch (desktop.state) {
    case "running": {
      if (failures === 0) tell("connecting", t("Connecting …"));
      const held = await connect();
      if (held > 0 && !session.connected) {
        // it was told to go: what it does next is known in a moment
        await pause(300);
        return 0;
      }
      const now = held > GOOD ? 1 : failures + 1;
      await backOff(now, t(lost));
      return now;
    }
    case "suspended": {
      const reason = desktop.ended?.failed ? told(desktop.ended.reason) : "";
      if (mayWake && !reason) {
        tell("waking", t("{name} is waking up …", { name }));
        // the connection itself wakes it; once is enough if it cannot
        const held = await connect();
        mayWake = false;
        await pause(held ? 500 : 1000);
        return 0;
      }
      thaw();
      tell("suspended", t("{name} is asleep", { name }), reason || t("It goes on exactly where it was."), t("Resume"));
      await pause(2000);
      return 0;
    }
    case "suspending":
      tell("suspending", t("{name} is falling asleep …", { name }));
      await pause(500);
      return 0;
    case "starting":
      thaw();
      tell("starting", t("{name} is starting …", { name }));
      await pause(500);
      return 0;
    case "stopping":
      tell("stopping", t("{name} is shutting down …", { name }));
      await pause(1000);
      return 0;
    default: {
      thaw();
      const failed = desktop.ended?.failed === true;
      const title = failed ? t("{name} is not running", { name }) : t("{name} is stopped", { name });
      tell(failed ? "failed" : "stopped", title, told(desktop.ended?.reason ?? ""), t("Start"));
      await pause(2000);
      return 0;
    }
  }
}

/** Goes on until the page is left, or there is no such desktop. */
export async function run() {
  for (let failures = 0; ; ) {
    try {
      failures = await round(failures);
    } catch (error) {
      if (loggedOut(error)) return;
      if (error.status === 404) {
        thaw();
        tell("missing", t("No such desktop"), error.message);
        return;
      }
      failures += 1;
      tell("reconnecting", t("Reconnecting …"), error.message);
      await backOff(failures, error.message);
    }
  }
}

/** Tells what went wrong, for a while, over whatever is there. */
export function notice(text, kind = "bad") {
  const element = part("notice");
  element.dataset.kind = kind;
  element.textContent = text;
  element.hidden = false;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => (element.hidden = true), 8000);
}

/** Has the service do something with the desktop: `path` and `body` are of its API. Says so meanwhile if there is a `state`. */
export async function act(rest, { state, title, failure, body } = {}) {
  const before = session.state;
  if (state) tell(state, title);
  try {
    const answer = await post(path(session.reference, rest), body);
    hurry();
    return answer;
  } catch (error) {
    if (loggedOut(error)) return;
    if (before === "connected" && session.rfb) tell("connected");
    else hurry();
    notice(`${failure} ${error.message}`);
  }
}

part("veil-start").addEventListener("click", () => {
  if (session.state === "suspended" && !rights.own) mayWake = true;
  if (session.state === "reconnecting" || !rights.own) hurry();
  else if (session.state === "suspended") act("/start", { state: "waking", title: t("Waking …"), failure: t("It did not wake.") });
  else act("/start", { state: "starting", title: t("Starting …"), failure: t("It did not start.") });
});

addEventListener("online", hurry);
document.addEventListener("visibilitychange", () => document.hidden || hurry());
