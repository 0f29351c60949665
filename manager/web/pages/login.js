// Logging in, and choosing a password when the one used was made by the service.

import { get, part, post } from "./api.js";
import { t } from "./text.js";

const login = part("login-form");
const password = part("password-form");

function askForNewPassword(name, current) {
  login.hidden = true;
  password.hidden = false;
  password.elements.name.value = name;
  password.elements.current.value = current;
  document.getElementById("current").hidden = current !== "";
  document.getElementById("lead").textContent = t("Welcome, {name}. Choose a password of your own, 8 characters or more.", { name });
  password.elements[current === "" ? "current" : "new"].focus();
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
  const { name, password: secret } = login.elements;
  submit(login, part("login-error"), async () => {
    const user = await post("/v1/session", { name: name.value.trim(), password: secret.value });
    if (user.must_change_password) askForNewPassword(user.name, secret.value);
    else location.assign("/");
  });
});

password.addEventListener("submit", (event) => {
  event.preventDefault();
  const { current, new: fresh, again } = password.elements;
  submit(password, part("password-error"), async () => {
    if (fresh.value !== again.value) throw new Error(t("The two passwords differ."));
    await post("/v1/session/password", { current: current.value, new: fresh.value });
    location.assign("/");
  });
});

// who is logged in already need not do it again
get("/v1/session").then(
  (user) => (user.must_change_password ? askForNewPassword(user.name, "") : location.replace("/")),
  () => {},
);
