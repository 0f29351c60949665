// Plays what the page hands over, evenly, although it comes unevenly: sound waits in a buffer that is as short as the
// network allows. Runs on the browser's thread for sound.
//
// Messages in: { time, channels: [left, right] }, time in seconds of the machine; { forget: true }.
// Messages out, twice a second: { level, target, late, skipped } (seconds, and how often).

/** Seconds of sound that should wait: at first and at least, more after each time it came too late, and at most. */
const TARGET = { least: 0.06, more: 0.02, most: 0.4 };
/** The target shrinks by this much a second while nothing comes late. */
const SHRINKS = 0.0005;
/** Sound that waits for longer than the target and this, in seconds, is skipped: after a break much comes at once. */
const TOO_MUCH = 0.15;
/** What may be lost between two packets, in seconds, so that silence takes its place; beyond it the machine was silent. */
const GAP = 0.1;
/** Sound is played faster or slower by at most this share, which nobody hears, to keep the buffer at its target. */
const BEND = 0.004;
/** Frames in which sound begins after silence, and ends. */
const RAMP = 96;

class Player extends AudioWorkletProcessor {
  #size = 2 * sampleRate;
  #ring = [new Float32Array(this.#size), new Float32Array(this.#size)];
  #read = 0; // frames, the fraction too
  #written = 0;
  #end = null; // when the sound that was written last ends, on the machine
  #target = TARGET.least;
  #playing = false;
  #starved = false;
  #loud = 0; // frames of the ramp
  #average = 0;
  #late = 0;
  #skipped = 0;
  #told = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => (data.forget ? this.#forget() : this.#take(data));
  }

  get #level() {
    return this.#written - this.#read;
  }

  #forget() {
    this.#read = this.#written;
    this.#end = null;
    this.#playing = false;
    this.#starved = false;
  }

  #take({ time, channels }) {
    const frames = channels[0].length;
    const gap = this.#end === null ? Infinity : time - this.#end;
    this.#end = time + frames / sampleRate;
    // it follows what was there, and that ran out: it came too late
    if (this.#starved && Math.abs(gap) < GAP) {
      this.#late += 1;
      this.#target = Math.min(this.#target + TARGET.more, TARGET.most);
    }
    this.#starved = false;
    if (gap > 0.001 && gap < GAP && this.#playing) this.#write(Math.round(gap * sampleRate), () => 0);
    this.#write(frames, (channel, at) => channels[channel][at]);
    if (this.#level > (this.#target + TOO_MUCH) * sampleRate) {
      this.#skipped += 1;
      this.#read = this.#written - Math.round(this.#target * sampleRate);
      this.#loud = 0;
      this.#average = this.#level;
    }
  }

  #write(frames, sample) {
    for (let at = Math.max(0, frames - this.#size / 2); at < frames; at += 1) {
      const place = this.#written % this.#size;
      for (let channel = 0; channel < 2; channel += 1) this.#ring[channel][place] = sample(channel, at);
      this.#written += 1;
    }
  }

  /** The sample between two, by a curve through four. */
  #between(channel, at, share) {
    const ring = this.#ring[channel];
    const size = this.#size;
    const [a, b, c, d] = [ring[(at - 1 + size) % size], ring[at % size], ring[(at + 1) % size], ring[(at + 2) % size]];
    return b + (share / 2) * (c - a + share * (2 * a - 5 * b + 4 * c - d + share * (3 * (b - c) + d - a)));
  }

  process(_inputs, [[left, right]]) {
    const wanted = this.#target * sampleRate;
    if (!this.#playing && this.#level >= wanted) {
      this.#playing = true;
      this.#loud = 0;
      this.#average = this.#level;
    }
    // packets come in steps of 20 ms: what counts is the level over a while
    this.#average += (this.#level - this.#average) * 0.005;
    const off = (this.#average - wanted) / wanted;
    const step = 1 + BEND * Math.max(-1, Math.min(1, Math.abs(off) < 0.15 ? 0 : off));
    for (let frame = 0; frame < left.length; frame += 1) {
      if (this.#playing && this.#level < 4) {
        this.#playing = false;
        this.#starved = true;
      }
      if (!this.#playing) break;
      // the last frames that there are end softly: nobody knows yet whether more will come
      this.#loud = this.#level < RAMP ? Math.min(this.#loud, this.#level) : Math.min(this.#loud + 1, RAMP);
      const at = Math.floor(this.#read);
      const share = this.#read - at;
      left[frame] = (this.#between(0, at, share) * this.#loud) / RAMP;
      right[frame] = (this.#between(1, at, share) * this.#loud) / RAMP;
      this.#read += step;
    }
    if (this.#playing) this.#target = Math.max(TARGET.least, this.#target - (SHRINKS * left.length) / sampleRate);
    this.#told += left.length;
    if (this.#told >= sampleRate / 2) {
      this.#told = 0;
      this.port.postMessage({ level: this.#level / sampleRate, target: this.#target, late: this.#late, skipped: this.#skipped });
    }
    return true;
  }
}

registerProcessor("yunju-player", Player);
