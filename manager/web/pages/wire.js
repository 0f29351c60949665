// Reads along what an RFB server says (RFC 6143 and its registry of extensions), without decoding a pixel: where
// messages begin and end, how large rectangles are and how they are coded.
//
// Answers to fences of ours are taken out, as noVNC asks for none and would end the connection. Whoever says what is
// not understood here is followed no further: all passes, and nothing is told any more.

/** How a rectangle of pixels came. */
export const CODECS = ["h264", "jpeg", "lossless", "copy"];

const RAW = 0, COPY = 1, TIGHT = 7, ZRLE = 16, H264 = 50;
const VMWARE_CURSOR = 0x574d5664, CURSOR = -239, DESKTOP_SIZE = -223, LAST_RECT = -224, QEMU_KEYS = -258, QEMU_LEDS = -261;
const DESKTOP_NAME = -307, SCREENS = -308, MOUSE_BUTTONS = -316;
const FENCE = 248;
const REQUEST = 0x80000000;

class Unknown extends Error {}

// A reader asks for bytes by yielding how many it wants to see, which it does until it asks again, or as a negative
// number how many may pass.

const u16 = (bytes, at = 0) => (bytes[at] << 8) | bytes[at + 1];
const u32 = (bytes, at = 0) => ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;

function* compactLength() {
  let length = 0;
  for (let shift = 0; shift <= 14; shift += 7) {
    const [byte] = yield 1;
    length |= (shift === 14 ? byte : byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return length;
}

function* tight(width, height) {
  const kind = (yield 1)[0] >> 4;
  if (kind === 8) {
    yield -3;
    return "lossless";
  }
  if (kind === 9) {
    yield -(yield* compactLength());
    return "jpeg";
  }
  if (kind > 7) throw new Unknown();
  const filter = kind & 4 ? (yield 1)[0] : 0;
  let row = width * 3;
  if (filter === 1) {
    const colours = (yield 1)[0] + 1;
    yield -colours * 3;
    row = colours <= 2 ? Math.ceil(width / 8) : width;
  }
  const size = row * height;
  yield -(size < 12 ? size : yield* compactLength());
  return "lossless";
}

/** Passes a rectangle's content; how its pixels came, if it has any. */
function* content(encoding, width, height) {
  switch (encoding) {
    case COPY: yield -4; return "copy";
    case RAW: yield -width * height * 4; return "lossless";
    case ZRLE: yield -u32(yield 4); return "lossless";
    case TIGHT: return yield* tight(width, height);
    case H264: yield -u32(yield 8); return "h264";
    case CURSOR: yield -(width * height * 4 + Math.ceil(width / 8) * height); return null;
    case VMWARE_CURSOR: {
      const [kind] = yield 2;
      yield -width * height * (kind === 0 ? 8 : 4);
      return null;
    }
    case DESKTOP_NAME: yield -u32(yield 4); return null;
    case QEMU_LEDS: yield -1; return null;
    case DESKTOP_SIZE: case LAST_RECT: case QEMU_KEYS: case MOUSE_BUTTONS: return null;
    default: throw new Unknown();
  }
}

function* update(wire) {
  const rects = u16(yield 3, 1);
  let painted = false;
  for (let n = 0; n < rects; n += 1) {
    const head = yield 12;
    const [reason, status, width, height, encoding] = [u16(head), u16(head, 2), u16(head, 4), u16(head, 6), u32(head, 8) | 0];
    const from = wire.seen - 12;
    if (encoding === SCREENS) {
      const count = (yield 4)[0];
      const screen = yield 16;
      yield -(count - 1) * 16;
      wire.listener.size?.({ width, height, reason, status, screen: u32(screen), flags: u32(screen, 12) });
      continue;
    }
    const codec = yield* content(encoding, width, height);
    if (encoding === DESKTOP_SIZE) wire.listener.size?.({ width, height, reason: 0, status: 0 });
    if (codec) {
      painted = true;
      wire.listener.rect?.(codec, width * height, wire.seen - from);
    }
    if (encoding === LAST_RECT) break;
  }
  if (painted) wire.listener.update?.();
}

function* fence(wire) {
  const head = yield 8;
  const [flags, length] = [u32(head, 3), head[7]];
  const payload = length ? (yield length).slice() : new Uint8Array();
  wire.ours = (flags & REQUEST) === 0;
  if (wire.ours) wire.listener.fence?.(payload);
}

function* conversation(wire) {
  yield -12;
  const kinds = (yield 1)[0];
  if (kinds === 0) throw new Unknown();
  yield -kinds;
  if (u32(yield 4) !== 0) throw new Unknown();
  yield -20;
  yield -u32(yield 4);
  wire.listener.ready?.();
  for (;;) {
    const [kind] = yield 1;
    switch (kind) {
      case 0: yield* update(wire); break;
      case 1: yield -u16(yield 5, 3) * 6; break;
      case 2: case 150: break;
      case 3: yield -Math.abs(u32(yield 7, 3) | 0); break;
      case FENCE:
        wire.hold();
        yield* fence(wire);
        wire.release();
        break;
      case 250: yield -3; break;
      default: throw new Unknown();
    }
  }
}

export class Wire {
  #reader;
  #wanted = 0;
  #kept = new Uint8Array(300);
  #got = 0;
  #shown = false;
  #held = null; // bytes that may be ours
  #pieces = [];
  #chunk;
  #at = 0;
  #from = 0;

  /** Bytes that have been read. */
  seen = 0;
  ours = false;

  /** `listener` may have `ready`, `rect(codec, pixels, bytes)`, `update`, `size`, `fence(payload)`. */
  constructor(listener) {
    this.listener = listener;
    this.#reader = conversation(this);
    this.#ask(this.#reader.next());
  }

  /** Whether the server is not understood any more. */
  get lost() {
    return this.#reader === null;
  }

  /** Reads on, and returns what noVNC is to be given. */
  push(chunk) {
    if (this.lost) return [chunk];
    this.#chunk = chunk;
    [this.#at, this.#from, this.#pieces] = [0, 0, []];
    try {
      this.#read();
    } catch (error) {
      if (!(error instanceof Unknown)) throw error;
      this.#reader = null;
    }
    if (this.#held) this.#held.push(...chunk.subarray(this.#from));
    else this.#pieces.push(chunk.subarray(this.#from));
    return this.#pieces.filter(({ length }) => length > 0);
  }

  #read() {
    for (;;) {
      while (this.#wanted === 0) this.#ask(this.#reader.next(this.#shown ? this.#kept.subarray(0, this.#got) : undefined));
      const now = Math.min(this.#wanted, this.#chunk.length - this.#at);
      if (now === 0) return;
      if (this.#shown) this.#kept.set(this.#chunk.subarray(this.#at, this.#at + now), this.#got);
      this.#got += now;
      this.#at += now;
      this.seen += now;
      this.#wanted -= now;
    }
  }

  #ask({ value }) {
    this.#shown = value > 0;
    this.#wanted = Math.abs(value);
    this.#got = 0;
  }

  /** From the byte just read on, nothing passes before it is known whose it is. */
  hold() {
    if (this.#at - 1 > this.#from) this.#pieces.push(this.#chunk.subarray(this.#from, this.#at - 1));
    this.#from = this.#at - 1;
    this.#held = [];
  }

  release() {
    this.#held.push(...this.#chunk.subarray(this.#from, this.#at));
    this.#from = this.#at;
    if (!this.ours) this.#pieces.push(Uint8Array.from(this.#held));
    this.#held = null;
  }
}
