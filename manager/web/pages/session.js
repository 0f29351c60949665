// The desktop that this page shows, for all parts of the page:
//
//     session.reference            its name or id, as in the page's address
//     session.desktop              what the service last said of it
//     session.state                "connected", "reconnecting", "suspended", …
//     session.rfb, session.link    noVNC and its websocket, or null
//     session.socket("/audio")     the address of a websocket beside the screen's
//     session.focus()              the desktop gets the keyboard
//     session.keys                 what gets it instead of the screen, or null
//
// Events: `state`, `connect` when there is a screen, `picture` when it has its first pixels, `disconnect`.

const reference = decodeURIComponent(location.pathname.split("/")[2] ?? "");

class Session extends EventTarget {
  reference = reference;
  desktop = null;
  state = "connecting";
  rfb = null;
  link = null;
  keys = null;

  socket(rest = "") {
    const secure = location.protocol === "https:" ? "wss:" : "ws:";
    return `${secure}//${location.host}/desktops/${encodeURIComponent(reference)}/ws${rest}`;
  }

  get connected() {
    return this.state === "connected";
  }

  focus() {
    (this.keys ?? this.rfb)?.focus({ preventScroll: true });
  }

  tell(event) {
    this.dispatchEvent(new Event(event));
  }
}

export const session = new Session();
