// What a page says without being asked: for a while, and to screen readers too. `role=alert` reads at once, `status` in its turn.

import { loggedOut } from "./api.js";
import { make } from "./dom.js";

const STAYS = { bad: 9000, good: 5000 };

const rooms = Object.fromEntries(
  Object.entries({ bad: "alert", good: "status" }).map(([kind, role]) => {
    const room = make("p", { class: "notice", role, "data-testid": kind === "bad" ? "notice" : "notice-good", "data-kind": kind, hidden: true });
    document.body.append(room);
    return [kind, room];
  }),
);

function show(kind, text) {
  const room = rooms[kind];
  room.textContent = text;
  room.hidden = false;
  clearTimeout(room.timer);
  room.timer = setTimeout(() => (room.hidden = true), STAYS[kind]);
}

/** Something went well. */
export const say = (text) => show("good", text);

/** Something did not. */
export const complain = (text) => show("bad", text);

/** An error, unless it is that the session is over, or that the service cannot be reached, of which the shell tells. */
export function notice(error) {
  if (error?.name === "AbortError" || loggedOut(error)) return;
  complain(error.message);
}
