// Images: what desktops are made from, and whether new ones need to boot.

import { dayOf, get, post, size, sleep } from "./api.js";
import { title } from "./admin.js";
import { make } from "./dom.js";
import { may } from "./me.js";
import { notice, say } from "./notices.js";
import { t, told } from "./text.js";

const warmth = ({ warm }) => {
  const words = { cold: t("its desktops boot"), warming: t("being booted once …"), warm: t("its desktops start at once"), failed: t("could not be booted") };
  return warm && make("span", { class: "chip", "data-testid": "image-warmth", "data-state": warm.state }, words[warm.state]);
};

function panel(image, load) {
  const id = `image-${image.name}`;
  const processors = image.cpus === 1 ? t("1 processor") : t("{count} processors", { count: image.cpus });
  const facts = [size(image.memory), processors, image.display ? t("with a screen") : t("without a screen"), image.net ? t("with a network") : t("without a network")];
  const warm = async ({ currentTarget }) => {
    currentTarget.disabled = true;
    try {
      await post(`/v1/images/${encodeURIComponent(image.name)}/warm`);
      say(t("{name} is being booted once.", { name: image.name }));
      await load();
    } catch (error) {
      notice(error);
    } finally {
      currentTarget.disabled = false;
    }
  };
  return make("section", { class: "panel", "aria-labelledby": id, "data-testid": "image", "data-name": image.name },
    make("div", { class: "head" }, make("h2", { id }, image.name), warmth(image)),
    make("p", {}, image.description),
    image.problem ? make("p", { class: "error" }, told(image.problem)) : make("p", { class: "quiet" }, facts.join(" · ")),
    image.warm?.problem && make("p", { class: "error" }, told(image.warm.problem)),
    make("p", { class: "quiet small" }, image.created && t("built {day}", { day: dayOf(image.created) }), " ", make("code", {}, image.digest.slice(0, 12))),
    may.rule && image.warm && ["cold", "failed"].includes(image.warm.state) && make("div", { class: "row" }, make("button", { type: "button", "data-testid": "image-warm", onclick: warm }, t("Boot it once"))));
}

export async function show({ root, signal }) {
  const panels = make("div", { class: "panels", "data-testid": "images" });
  const none = make("p", { class: "quiet nothing", role: "status" }, t("There is no image yet: an admin builds one with `yunju image build`."));
  async function load() {
    const images = await get("/v1/images");
    if (signal.aborted) return;
    panels.replaceChildren(...images.map((image) => panel(image, load)));
    none.hidden = images.length > 0;
    if (images.some(({ warm }) => warm?.state === "warming")) sleep(2000).then(() => signal.aborted || load().catch(() => {}));
  }
  await load();
  root.append(title(t("Images")), none, panels);
}
