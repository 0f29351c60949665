// What happens in the service, as it happens: one stream for the whole page.
//
//     on("desktop.state", ({ id, state }) => …, signal)     an event; `signal` ends it
//     on("open", () => …)                                   the stream is there: look at everything anew, then follow
//     on("lost", …)                                         it is not; it comes back by itself
//
// A page that nobody looks at has no stream: a browser has six connections to a server, for all of its pages.

import { get, loggedOut } from "./api.js";

const KINDS = ["desktop.add", "desktop.change", "desktop.remove", "desktop.state", "desktop.viewers", "operation"];
const PAUSE = 1000;
const LONGEST_PAUSE = 8000;

const heard = new EventTarget();
let source = null;
let timer;
let pause = PAUSE;

/** Whether the stream is there. */
export let live = false;

export function on(kind, work, signal) {
  heard.addEventListener(kind, ({ detail }) => work(detail), { signal });
}

const tell = (kind, detail) => heard.dispatchEvent(new CustomEvent(kind, { detail }));

function open() {
  clearTimeout(timer);
  source?.close();
  const stream = (source = new EventSource("/v1/events"));
  stream.addEventListener("open", () => {
    live = true;
    pause = PAUSE;
    tell("open");
  });
  stream.addEventListener("error", () => stream === source && lost());
  for (const kind of KINDS) stream.addEventListener(kind, ({ data }) => tell(kind, JSON.parse(data)));
}

/** The browser would try again by itself only after some kinds of errors. */
async function lost() {
  close();
  const reason = await get("/v1/session").then(() => null, (error) => error);
  if (reason && loggedOut(reason)) return;
  if (source || document.hidden) return;
  tell("lost");
  clearTimeout(timer);
  timer = setTimeout(open, pause);
  pause = Math.min(pause * 2, LONGEST_PAUSE);
}

export function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
  live = false;
}

/** Begins to listen. */
export function listen() {
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : source || open()));
  window.addEventListener("online", () => live || open());
  if (!document.hidden) open();
}
