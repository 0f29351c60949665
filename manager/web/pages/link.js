// The websocket that noVNC talks through: it counts what comes, asks how long an answer takes, and notices when none
// comes any more, which a browser does not.

import { Wire } from "./wire.js";

/** An answer to a fence is asked for this often, in milliseconds. */
const EVERY = 2000;

/** Without any answer for this long, in milliseconds, the connection counts as lost. */
const PATIENCE = 12_000;

const REQUEST = 0x80000000;

export class Link extends EventTarget {
  // what noVNC expects of a websocket
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;

  #socket;
  #wire;
  #asked = new Map(); // number → when it was asked
  #number = 0;
  #timer;
  #heard = performance.now();

  /** All that was received: bytes, updates, and by codec pixels and bytes. */
  counts = { bytes: 0, sent: 0, updates: 0, codecs: new Map() };
  /** Milliseconds from asking to the answer, newest last. */
  trips = [];
  /** Why it was given up from here. */
  reason = "";

  constructor(url) {
    super();
    this.#socket = new WebSocket(url);
    this.#socket.binaryType = "arraybuffer";
    this.#wire = new Wire({
      ready: () => (this.#timer = setInterval(() => this.#watch(), EVERY)),
      rect: (codec, pixels, bytes) => this.#count(codec, pixels, bytes),
      update: () => this.#updated(),
      size: (size) => this.dispatchEvent(new CustomEvent("size", { detail: size })),
      fence: (payload) => this.#answered(payload),
    });
    this.#socket.onopen = (event) => this.onopen?.(event);
    this.#socket.onerror = (event) => this.onerror?.(event);
    this.#socket.onclose = (event) => {
      clearInterval(this.#timer);
      this.onclose?.(event);
    };
    this.#socket.onmessage = ({ data }) => {
      this.#heard = performance.now();
      this.counts.bytes += data.byteLength;
      for (const piece of this.#wire.push(new Uint8Array(data))) {
        this.onmessage?.({ data: piece.length === data.byteLength ? data : piece });
      }
    };
  }

  get binaryType() {
    return this.#socket.binaryType;
  }

  set binaryType(kind) {
    this.#socket.binaryType = kind;
  }

  get protocol() {
    return this.#socket.protocol;
  }

  get readyState() {
    return this.#socket.readyState;
  }

  send(data) {
    this.counts.sent += data.byteLength;
    this.#socket.send(data);
  }

  close() {
    clearInterval(this.#timer);
    this.#socket.close();
  }

  /** Ends a connection that is of no use any more. */
  giveUp(reason) {
    if (this.reason) return;
    this.reason = reason;
    clearInterval(this.#timer);
    this.#socket.close();
    // the browser waits for the other end to agree, noVNC need not
    this.onclose?.(new CloseEvent("close", { code: 1006, reason, wasClean: false }));
    this.onclose = null;
  }

  /** Asks the machine for another size; answered by a `size` event. */
  resize(width, height, screen = 0, flags = 0) {
    const message = new DataView(new ArrayBuffer(24));
    message.setUint8(0, 251);
    message.setUint16(2, width);
    message.setUint16(4, height);
    message.setUint8(6, 1);
    message.setUint32(8, screen);
    message.setUint16(16, width);
    message.setUint16(18, height);
    message.setUint32(20, flags);
    this.#say(message);
  }

  /** Asks for an answer, to see how long it takes. */
  ping() {
    const message = new DataView(new ArrayBuffer(17));
    message.setUint8(0, 248);
    message.setUint32(4, REQUEST);
    message.setUint8(8, 8);
    this.#number += 1;
    message.setUint32(9, 0x79756e6a); // “yunj”
    message.setUint32(13, this.#number);
    this.#asked.set(this.#number, performance.now());
    this.#say(message);
  }

  #say(message) {
    if (this.readyState === WebSocket.OPEN && !this.#wire.lost) this.send(message.buffer);
  }

  #watch() {
    if (this.#wire.lost) return clearInterval(this.#timer);
    const silent = this.#asked.size > 0 && performance.now() - this.#heard > PATIENCE;
    if (silent) return this.giveUp("silent");
    this.ping();
  }

  #answered(payload) {
    if (payload.length !== 8) return;
    const number = new DataView(payload.buffer).getUint32(4);
    const asked = this.#asked.get(number);
    if (asked === undefined) return;
    this.#asked.delete(number);
    this.trips = [...this.trips.slice(-29), performance.now() - asked];
    this.dispatchEvent(new CustomEvent("answer"));
  }

  #count(codec, pixels, bytes) {
    const before = this.counts.codecs.get(codec) ?? { pixels: 0, bytes: 0 };
    this.counts.codecs.set(codec, { pixels: before.pixels + pixels, bytes: before.bytes + bytes });
  }

  #updated() {
    this.counts.updates += 1;
    if (this.counts.updates === 1) this.dispatchEvent(new CustomEvent("picture"));
  }
}
