// Who is at this page, and what they may: only to show what fits. The service decides.

import { get } from "./api.js";

export let me = null;

/** Asks the service. */
export async function meet() {
  me = await get("/v1/session");
  me.roles ??= [me.role];
  return me;
}

const is = (...roles) => roles.some((role) => me.roles.includes(role));

export const may = {
  /** Has desktops of their own. */
  get own() { return is("admin", "user", "developer"); },
  /** Changes users, desktops of others, the service. */
  get rule() { return is("admin"); },
  /** Sees users, desktops of others, the audit log. */
  get oversee() { return is("admin", "auditor"); },
  /** Chooses how large a desktop is: within a quota that bounds that. */
  get size() { return is("admin") || (me.quota.memory != null && me.quota.cpus != null); },
};
