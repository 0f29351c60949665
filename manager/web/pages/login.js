// Logging in, with a second factor if there is one, and choosing a password: when the one used was made by the service,
// or by a link, whose token stands behind the address's `#`, which no server sees.

import { get, part, post } from "./api.js";
import { t } from "./text.js";

const login = part("login-form");
const password = part("password-form");
const asked = new URLSearchParams(location.hash.slice(1));
let link = asked.get("link");

/** Where one was when the session ended: a page of this service, or else the desktops. */
function wanted() {
  const next = asked.get("next") ?? "/";
  const url = URL.canParse(next, location.origin) ? new URL(next, location.origin) : null;
  return url?.origin === location.origin && next.startsWith("/") ? url.pathname + url.search : "/";
}

function showPasswordForm() {
  login.hidden = true;
  password.hidden = false;
}

function askForNewPassword(name, current) {
  showPasswordForm();
  password.elements.name.value = name;
  password.elements.current.value = current;
  document.getElementById("current").hidden = current !== "";
  document.getElementById("lead").textContent = t("Welcome, {name}. Choose a password of your own, 8 characters or more.", { name });
  password.elements[current === "" ? "current" : "new"].focus();
}

function askForPasswordByLink() {
  showPasswordForm();
  document.getElementById("lead").textContent = t("Choose the password that you will log in with, 8 characters or more.");
  password.elements.new.focus();
}

/** Back to logging in, once the link is used. */
function askForLogin() {
  link = null;
  history.replaceState(null, "", location.pathname);
  password.hidden = true;
  login.hidden = false;
  document.getElementById("lead").textContent = t("Your password is chosen. Log in with it.");
  login.elements.name.focus();
}

function askForCode() {
  const code = document.getElementById("code");
  if (!code.hidden) return false;
  code.hidden = false;
  login.elements.code.required = true;
  login.elements.code.focus();
  return true;
}

async function submit(form, error, work) {
  const button = form.querySelector("button");
  error.textContent = "";
  button.disabled = true;
  try {
    await work();
  } catch (refused) {
    error.textContent = refused.message;
  } finally {
    button.disabled = false;
  }
}

login.addEventListener("submit", (event) => {
  event.preventDefault();
  const { name, password: secret, code } = login.elements;
  const given = { name: name.value.trim(), password: secret.value };
  if (code.value !== "") given.code = code.value.trim();
  submit(login, part("login-error"), async () => {
    const user = await post("/v1/session", given).catch((refused) => {
      if (refused.code === "second_factor_needed" && askForCode()) return undefined;
      throw refused;
    });
    if (user === undefined) return;
    if (user.must_change_password) askForNewPassword(user.name, secret.value);
    else location.assign(wanted());
  });
});

password.addEventListener("submit", (event) => {
  event.preventDefault();
  const { current, new: fresh, again } = password.elements;
  submit(password, part("password-error"), async () => {
    if (fresh.value !== again.value) throw new Error(t("The two passwords differ."));
    if (link !== null) {
      await post("/v1/links", { token: link, password: fresh.value });
      askForLogin();
      return;
    }
    await post("/v1/session/password", { current: current.value, new: fresh.value });
    location.assign("/");
  });
});

// until here a form would have gone nowhere: never with a password into an address
for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;

if (link !== null) {
  askForPasswordByLink();
} else {
  // who is logged in already need not do it again
  get("/v1/session").then(
    (user) => (user.must_change_password ? askForNewPassword(user.name, "") : location.replace(wanted())),
    () => {},
  );
}
