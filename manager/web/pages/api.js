// The service's API, asked from its own pages.

import { apart } from "./portal.js";
import { locale, t, told } from "./text.js";

/** A request that was not carried out; the message is a sentence for people. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

async function request(method, path, body, more = {}) {
  const options = { method, headers: { ...more } };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused(0, "unreachable", t("The service cannot be reached."));
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail ? told(sentence(problem.detail)) : t("The service answers {status}.", { status: response.status });
  throw new Refused(response.status, problem.code ?? "", detail);
}

/** Details come as a clause in plain text: for a page it gets a capital letter, quotation marks and a full stop. */
export function sentence(text) {
  const quoted = text.replace(/`([^`]*)`/g, "“$1”");
  const capital = quoted.charAt(0).toUpperCase() + quoted.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}

const answered = (response) => (response.status === 204 || response.status === 205 ? undefined : response.json().catch(() => undefined));

export const get = async (path) => (await request("GET", path)).json();
export const blob = async (path) => (await request("GET", path)).blob();
export const remove = async (path) => void (await request("DELETE", path));
export const put = async (path, body) => answered(await request("PUT", path, body));
export const patch = async (path, body) => answered(await request("PATCH", path, body));

export async function post(path, body = {}) {
  return answered(await request("POST", path, body));
}

/** A page of a list, and the address of the next one if there is more. */
export async function list(path) {
  const response = await request("GET", path);
  const [, next] = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get("link") ?? "") ?? [];
  return { entries: await response.json(), next };
}

/** Asks for work that takes a while: `{ operation }` if it goes on by itself, else `{ answer }`. */
export async function begin(path, body = undefined, method = "POST") {
  const response = await request(method, path, body ?? (method === "POST" ? {} : undefined), { prefer: "respond-async" });
  const answer = await answered(response);
  return response.headers.has("preference-applied") ? { operation: answer } : { answer };
}

/** Changes something if it still is what it is now. */
export async function change(path, body) {
  const tag = (await request("GET", path)).headers.get("etag");
  return answered(await request("PATCH", path, body, { "if-match": tag ?? "*" }));
}

export const desktop = (reference, rest = "") => `/v1/desktops/${encodeURIComponent(reference)}${rest}`;

// on a desktop's own host name there is only the door
let leave = () => (apart ? location.reload() : location.assign("/login"));

/** What is done when the session turns out to be over; the login page is shown otherwise. */
export function onLoggedOut(work) {
  leave = work;
}

/** Whether the session is over, which is then seen to. */
export function loggedOut(error) {
  const over = error.status === 401 || error.code === "password_change_needed";
  if (over) leave();
  return over;
}

/** What an element of this page is called. */
export const part = (name, root = document) => root.querySelector(`[data-testid="${name}"]`);

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A moment in words: the time of day if it is of today, else the day too, and the year if it is another. */
export function when(text) {
  const moment = new Date(text);
  const now = new Date();
  const day = moment.toDateString() === now.toDateString() ? {} : { day: "numeric", month: "short" };
  const year = moment.getFullYear() === now.getFullYear() ? {} : { year: "numeric" };
  return moment.toLocaleString(locale, { hour: "2-digit", minute: "2-digit", hour12: false, ...day, ...year });
}

/** Only its day. */
export const dayOf = (text) => new Date(text).toLocaleDateString(locale, { day: "numeric", month: "short", year: "numeric" });

/** Bytes in words. */
export function size(bytes) {
  for (const [unit, worth] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (bytes >= worth) return `${+(bytes / worth).toFixed(1)} ${unit}`;
  }
  return `${bytes} B`;
}
