// What goes between this page and the guest beside the screen: clipboard, typed text, layout, steps of the pointer.
//
//     side.able                   what is possible now: { agent, to_guest, from_guest, text }
//     side.may                    what this person may: { input, clipboard, sound }; the proxy has the last word
//     side.send({ type, … }, bytes)
//
// Events: `able`, and `clip`, `taken`, `typed`, `layout`, `person`, `there`, `gone` with what was said in `detail` (`bytes` is what followed it). A frame is a line
// of JSON and as many bytes as its `length` says, as protocol/src/seat.rs and page.rs have it; messages of the websocket cut them anywhere.

import { session } from "./session.js";

/** Messages that the proxy takes have at most 1 MiB. */
const PIECE = 512 << 10;

/** Between two tries, in milliseconds. */
const PAUSE = 2000;

const NOTHING = { agent: false, to_guest: false, from_guest: false, text: false };
const ALL = { input: true, clipboard: true, sound: true };
const LINE_END = 10;

class Side extends EventTarget {
  able = NOTHING;
  may = ALL;
  #socket = null;
  #received = new Uint8Array();

  /** Whether somebody hears what is done here with keys and pointer. */
  get open() {
    return this.#hears && !session.rfb?.viewOnly;
  }

  get #hears() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  send(head, bytes = new Uint8Array()) {
    // who only looks on still points, and pastes if that is all that they may not do
    const quiet = head.type === "here" || (head.type === "clip" && !this.may.input);
    if (!(quiet ? this.#hears : this.open)) return;
    const line = new TextEncoder().encode(`${JSON.stringify(bytes.length ? { ...head, length: bytes.length } : head)}\n`);
    const frame = new Uint8Array(line.length + bytes.length);
    frame.set(line);
    frame.set(bytes, line.length);
    for (let at = 0; at < frame.length; at += PIECE) this.#socket.send(frame.subarray(at, at + PIECE));
  }

  connect() {
    this.disconnect();
    const socket = new WebSocket(session.socket("/io"), ["binary"]);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#hear(new Uint8Array(data));
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.disconnect();
      setTimeout(() => session.connected && !this.#socket && this.connect(), PAUSE);
    };
    this.#socket = socket;
  }

  disconnect() {
    const socket = this.#socket;
    this.#socket = null;
    this.#received = new Uint8Array();
    socket?.close();
    this.#tell("able", NOTHING);
  }

  #hear(bytes) {
    const all = new Uint8Array(this.#received.length + bytes.length);
    all.set(this.#received);
    all.set(bytes, this.#received.length);
    this.#received = all;
    for (;;) {
      const end = this.#received.indexOf(LINE_END);
      if (end < 0) return;
      const head = JSON.parse(new TextDecoder().decode(this.#received.subarray(0, end)));
      const past = end + 1 + (head.length ?? 0);
      if (this.#received.length < past) return;
      const body = this.#received.slice(end + 1, past);
      this.#received = this.#received.slice(past);
      this.#tell(head.type, { ...head, bytes: body });
    }
  }

  #tell(type, detail) {
    if (type === "able") {
      this.able = detail;
      // a connection that is lost changes nothing about it, and a proxy of before has no such words
      this.may = detail.may ?? this.may;
    }
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export const side = new Side();

session.addEventListener("connect", () => side.connect());
session.addEventListener("disconnect", () => side.disconnect());
