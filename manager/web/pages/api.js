// The service's API, asked from its own pages.

import { locale, t, told } from "./text.js";

/** A request that was not carried out; the message is a sentence for people. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

async function request(method, path, body) {
  const options = { method, headers: {} };
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
function sentence(text) {
  const quoted = text.replace(/`([^`]*)`/g, "“$1”");
  const capital = quoted.charAt(0).toUpperCase() + quoted.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}

export const get = async (path) => (await request("GET", path)).json();
export const blob = async (path) => (await request("GET", path)).blob();
export const remove = async (path) => void (await request("DELETE", path));

export async function post(path, body = {}) {
  const response = await request("POST", path, body);
  return response.status === 204 ? undefined : response.json();
}

export const desktop = (reference, rest = "") => `/v1/desktops/${encodeURIComponent(reference)}${rest}`;

/** Whether the session is over, in which case the login page is on its way. */
export function loggedOut(error) {
  const over = error.status === 401 || error.code === "password_change_needed";
  if (over) location.assign("/login");
  return over;
}

/** What an element of this page is called. */
export const part = (name, root = document) => root.querySelector(`[data-testid="${name}"]`);

export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A moment in words: the time of day if it is of today, else the day too. */
export function when(text) {
  const moment = new Date(text);
  const today = moment.toDateString() === new Date().toDateString();
  const day = today ? {} : { day: "numeric", month: "short" };
  return moment.toLocaleString(locale, { hour: "2-digit", minute: "2-digit", hour12: false, ...day });
}
