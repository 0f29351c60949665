// Small pictures of desktops, looked at anew while they are in sight.

import { blob, desktop as path } from "./api.js";

// a picture of a running desktop is looked at anew after this
const AGE = 5000;
const SHOWN = ["running", "suspending", "suspended"];

const pictures = new Map(); // image → { desktop, at, of, seen }
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const image = target.querySelector("img"); // its frame is watched: an image that is hidden is never in sight
    const known = pictures.get(image);
    if (!known) continue;
    known.seen = isIntersecting;
    if (isIntersecting) look(image, known);
  }
});

setInterval(() => {
  if (document.hidden) return;
  for (const [image, picture] of pictures) {
    if (!image.isConnected) forget(image);
    else if (picture.seen) look(image, picture);
  }
}, 1000);

/** `image` shows this desktop from now on. */
export function picture(image, desktop) {
  const known = pictures.get(image) ?? { at: 0, seen: false };
  if (!pictures.has(image)) {
    pictures.set(image, known);
    sight.observe(image.parentElement);
  }
  known.desktop = desktop;
  if (!SHOWN.includes(desktop.state)) {
    image.hidden = true;
    known.at = 0;
  }
  if (known.seen) look(image, known);
}

function forget(image) {
  sight.unobserve(image.parentElement);
  pictures.delete(image);
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
}

async function look(image, known) {
  const { desktop, at, of, looking } = known;
  // that of a desktop that sleeps stays
  const fresh = of === desktop.state && Date.now() - at < (desktop.state === "running" ? AGE : Infinity);
  if (!SHOWN.includes(desktop.state) || looking || (at && fresh)) return;
  Object.assign(known, { looking: true, at: Date.now(), of: desktop.state });
  try {
    const url = URL.createObjectURL(await blob(path(desktop.id, "/thumbnail")));
    const old = image.src;
    image.src = url;
    await image.decode();
    image.hidden = !SHOWN.includes(known.desktop.state);
    if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  } catch {
    if (known.at && !image.src) known.at = Date.now() - AGE + 2000; // none yet: again soon
  } finally {
    known.looking = false;
  }
}
