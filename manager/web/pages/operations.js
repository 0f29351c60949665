// Work that takes a while: begun here or elsewhere, followed by events.
//
//     await work(path, body)           asks for it and waits for what comes of it
//     busy(desktopId)                  what is being done with a desktop, in words, or null
//     on("work", ({ desktop_id }) => …)

import { Refused, begin, get, list, loggedOut, sentence } from "./api.js";
import * as events from "./events.js";
import { t, told } from "./text.js";

const going = new Map(); // desktop's id → Map of operation's id → kind
const waiting = new Map(); // operation's id → told when it has ended
const heard = new EventTarget();

export const on = (kind, work, signal) => heard.addEventListener(kind, ({ detail }) => work(detail), { signal });

const words = (kind) =>
  ({
    add: t("Being made …"), create: t("Being made …"), start: t("Starting …"), stop: t("Shutting down …"), restart: t("Restarting …"), suspend: t("Falling asleep …"),
    snapshot: t("Keeping this moment …"), restore: t("Going back …"), undo: t("Going back …"), fork: t("Forking …"),
    remove: t("Being deleted …"), delete: t("Being deleted …"), recover: t("Coming back …"),
  })[kind] ?? t("Working …");

export function busy(desktop) {
  const kinds = [...(going.get(desktop)?.values() ?? [])];
  return kinds.length ? words(kinds[0]) : null;
}

function note({ id, kind, desktop_id: desktop, state }) {
  const theirs = going.get(desktop) ?? new Map();
  const before = theirs.size;
  if (["queued", "running"].includes(state)) theirs.set(id, kind);
  else theirs.delete(id);
  if (theirs.size) going.set(desktop, theirs);
  else going.delete(desktop);
  if (before || theirs.size) heard.dispatchEvent(new CustomEvent("work", { detail: { desktop_id: desktop } }));
}

async function look(id) {
  const operation = await get(`/v1/operations/${id}`).catch((error) => void loggedOut(error));
  if (!operation) return;
  note(operation);
  if (operation.ended) {
    waiting.get(id)?.(operation);
    waiting.delete(id);
  }
}

events.on("operation", (operation) => {
  note(operation);
  if (waiting.has(operation.id)) look(operation.id);
});

// what was missed while nobody listened
events.on("open", async () => {
  const { entries } = await list("/v1/operations?limit=100").catch(() => ({ entries: [] }));
  const known = [...going.keys()];
  going.clear();
  entries.forEach(note);
  for (const desktop of known) if (!going.has(desktop)) heard.dispatchEvent(new CustomEvent("work", { detail: { desktop_id: desktop } }));
  for (const id of waiting.keys()) look(id);
});

/** What comes of an operation; throws why nothing did. */
export async function ended(operation) {
  note(operation);
  const end = await new Promise((done) => {
    waiting.set(operation.id, done);
    look(operation.id);
  });
  if (end.state === "succeeded") return end.result;
  const detail = end.problem ? told(sentence(end.problem.detail)) : t("It was cancelled.");
  throw new Refused(end.problem?.status ?? 409, end.problem?.code ?? "cancelled", detail);
}

/** Asks for work and waits for what comes of it, however long that takes. */
export async function work(path, body, method) {
  const { operation, answer } = await begin(path, body, method);
  return operation ? ended(operation) : answer;
}
