// Making a desktop: from which image, how large, whose.

import { get, post, size } from "./api.js";
import { choice, field, nameField, sheet } from "./dialogs.js";
import { make } from "./dom.js";
import { may, me } from "./me.js";
import { t } from "./text.js";

const GIB = 2 ** 30;
const MEMORIES = [0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32].map((gib) => gib * GIB);
const PROCESSORS = [1, 2, 3, 4, 6, 8];

/** What is left of a quota; `Infinity` if there is none. */
export function left({ quota, used } = me) {
  const of = (name) => (quota[name] == null ? Infinity : Math.max(0, quota[name] - used[name]));
  return { desktops: of("desktops"), memory: of("memory"), cpus: of("cpus") };
}

/** Sizes up to what is left, the image's own among them, which is the usual one. */
function sizes(all, own, most, words) {
  const fitting = [...new Set([...all, own])].sort((a, b) => a - b).filter((value) => value <= Math.max(most, own));
  return fitting.map((value) => [String(value), value === own ? t("{size} (usual)", { size: words(value) }) : words(value)]);
}

/** A choice among images as cards. */
function gallery(images, chosen, picked) {
  const group = make("fieldset", { class: "gallery", "data-testid": "create-images" }, make("legend", {}, t("Image")));
  for (const { name, description, warm } of images) {
    const radio = make("input", { type: "radio", name: "image", value: name, checked: name === chosen, required: true, "data-testid": `create-image-${name}`, onchange: () => picked(name) });
    const quick = warm?.state === "warm" && make("span", { class: "chip" }, t("starts at once"));
    group.append(make("label", { class: "tile" }, radio, make("span", {}, make("b", {}, name), quick, make("span", { class: "quiet" }, description))));
  }
  return group;
}

/** Opens the dialog; `made` gets the new desktop. */
export async function openCreate(made) {
  const [all, users] = await Promise.all([get("/v1/images"), may.rule ? get("/v1/users") : []]);
  const images = all.filter(({ problem }) => !problem);
  if (images.length === 0) {
    return sheet({ name: "create", title: t("New desktop"), lead: t("There is no image yet: an admin builds one with `yunju image build`."), close: t("Close") });
  }
  const first = images.find(({ name }) => name === "desktop") ?? images[0];
  const sizing = make("div", { class: "pair" });

  function describe(name) {
    const image = images.find((one) => one.name === name);
    if (!may.size) return;
    const rest = left();
    const processors = (count) => (count === 1 ? t("1 processor") : t("{count} processors", { count }));
    sizing.replaceChildren(
      field(t("Memory"), choice(sizes(MEMORIES, image.memory, rest.memory, size), String(image.memory), { name: "memory", "data-testid": "create-memory" })),
      field(t("Processors"), choice(sizes(PROCESSORS, image.cpus, rest.cpus, processors), String(image.cpus), { name: "cpus", "data-testid": "create-cpus" })),
    );
  }

  const owner = may.rule && field(t("Owner"), choice(users.map(({ name }) => [name, name]), me.name, { name: "owner", "data-testid": "create-owner" }));
  sheet({
    name: "create", title: t("New desktop"), action: t("Create and start"),
    content: [nameField("create-name"), gallery(images, first.name, describe), sizing, owner],
    work: async ({ name, image, memory, cpus, owner: whose }) => {
      const of = images.find((one) => one.name === image.value);
      const chosen = {};
      // what is not asked for is the image's, which a warmed machine has
      if (memory && Number(memory.value) !== of.memory) chosen.memory = Number(memory.value);
      if (cpus && Number(cpus.value) !== of.cpus) chosen.cpus = Number(cpus.value);
      if (whose && whose.value !== me.name) chosen.owner = whose.value;
      made(await post("/v1/desktops", { name: name.value, image: image.value, start: true, ...chosen }));
    },
  });
  describe(first.name);
}
