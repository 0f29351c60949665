// The portal, as a page on a desktop's own host name knows it: by name, and as the window around it if it is in a frame.

const LABEL = /^[a-z2-7]{32}\.desk\./;

/** Whether this page is on a desktop's own host name. */
export const apart = LABEL.test(location.host);

/** The portal's origin: this host's name without the two parts that are the desktop's. */
export const portal = `${location.protocol}//${location.host.replace(LABEL, "")}`;

/** Whether this page is in the portal's frame. */
export const framed = apart && parent !== self;

/** What the portal keeps for all desktops and lends to each: names in the browser's storage. */
export const KEPT = ["yunju.settings", "yunju.language", "yunju.theme"];

/** Tells the portal's frame around this page something, if there is one. */
export function tellPortal(message) {
  if (framed) parent.postMessage(message, portal);
}

/** Where a browser keeps nothing for a frame of another site, as below `localhost` it may not, the frame's own name has it until it is left. */
const inName = {
  all() {
    try {
      return JSON.parse(self.name) ?? {};
    } catch {
      return {};
    }
  },
  getItem: (key) => inName.all()[key] ?? null,
  setItem: (key, value) => (self.name = JSON.stringify({ ...inName.all(), [key]: value })),
};

function storage() {
  try {
    return localStorage;
  } catch {
    return inName;
  }
}

/** What is kept under a name, or null. */
export const kept = (name) => storage().getItem(name);

/** Keeps something here and in the portal. */
export function keep(name, value) {
  storage().setItem(name, value);
  tellPortal({ type: "keep", kept: { [name]: value } });
}

/** What the portal put behind the `#`: nobody else sees that, and it does not stay there. Settings are taken over, the ticket is the door's. */
function arrive() {
  let brought = null;
  try {
    brought = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  } catch {
    // nothing, or something that is not ours
  }
  if (location.hash) history.replaceState(null, "", location.pathname);
  for (const name of KEPT) if (typeof brought?.kept?.[name] === "string") storage().setItem(name, brought.kept[name]);
  return brought?.ticket;
}

/** The ticket that this page was opened with, if it was. */
export const ticket = apart ? arrive() : undefined;
