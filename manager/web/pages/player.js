// Sound of a desktop, and a microphone's: a websocket, the browser's decoder and its thread for sound
// (sound-worklet.js, microphone-worklet.js). What is said on the websocket: vnc-proxy/src/audio/session.rs.
//
//     const player = new Player(() => "ws://…");
//     await player.start();       in answer to a click or a key: browsers let nobody make noise before
//     player.connect(); player.volume = 0.5; await player.speak(true); player.close();
//
// Events: `microphone` when it goes on or off.

/** Frames a second, everywhere. */
const RATE = 48_000;
/** A connection that was lost is tried again after so long, in milliseconds; each time longer, up to the last. */
const WAITS = [250, 1000, 4000, 10_000];
/** A microphone's sound that waits to be sent, in bytes, is too late to be heard. */
const BACKLOG = 20_000;

const OPUS = { codec: "opus", sampleRate: RATE, numberOfChannels: 2 };

async function decodesOpus() {
  if (!("AudioDecoder" in globalThis)) return false;
  return AudioDecoder.isConfigSupported(OPUS).then(({ supported }) => supported, () => false);
}

/** Left and right of 16-bit samples. */
function channelsOf(bytes) {
  const view = new DataView(bytes);
  return [0, 1].map((channel) => Float32Array.from({ length: bytes.byteLength >> 2 }, (_, frame) => view.getInt16(frame * 4 + channel * 2, true) / 32768));
}

export class Player extends EventTarget {
  #address;
  #socket = null;
  #wanted = false;
  #failures = 0;
  #timer;
  #context = null;
  #worklet;
  #gain;
  #decoder = null;
  #opus = false;
  #volume = 1;
  #microphone = null;
  /** What the buffer says of itself: seconds that wait and should, how often sound came too late or was skipped. */
  statistics = { level: 0, target: 0, late: 0, skipped: 0 };
  /** Packets that came. */
  packets = 0;

  constructor(address) {
    super();
    this.#address = address;
  }

  /** Whether it may make noise. */
  get started() {
    return this.#context !== null;
  }

  /** The last node before the speakers, once started. */
  get output() {
    return this.#gain;
  }

  /** 0 is silence, 1 as loud as the desktop is. */
  set volume(volume) {
    this.#volume = volume;
    this.#gain?.gain.setTargetAtTime(volume, this.#context.currentTime, 0.02);
  }

  async start() {
    if (this.#context) return this.#context.resume();
    this.#context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    this.#gain = new GainNode(this.#context, { gain: this.#volume });
    this.#gain.connect(this.#context.destination);
    const [opus] = await Promise.all([decodesOpus(), this.#context.audioWorklet.addModule("/assets/sound-worklet.js"), this.#context.resume()]);
    this.#opus = opus;
    this.#worklet = new AudioWorkletNode(this.#context, "yunju-player", { numberOfInputs: 0, outputChannelCount: [2] });
    this.#worklet.port.onmessage = ({ data }) => (this.statistics = data);
    this.#worklet.connect(this.#gain);
    if (this.#wanted) this.#open();
  }

  /** Listens until `close`, and again whenever the connection is lost. */
  connect() {
    this.#wanted = true;
    this.#failures = 0;
    if (this.#worklet && !this.#socket) this.#open();
  }

  close() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.speak(false);
    this.#socket?.close();
    this.#drop();
  }

  #open() {
    clearTimeout(this.#timer);
    const socket = new WebSocket(this.#address());
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      socket.send(this.#opus ? "listen opus" : "listen pcm");
      if (this.#microphone) socket.send("microphone on");
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      this.#failures = 0;
      if (typeof data === "string") this.#told(data);
      else this.#hear(data);
    };
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#drop();
      if (!this.#wanted) return;
      this.#timer = setTimeout(() => this.#open(), WAITS[Math.min(this.#failures, WAITS.length - 1)]);
      this.#failures += 1;
    };
  }

  #drop() {
    this.#socket = null;
    this.#worklet?.port.postMessage({ forget: true });
    this.#stopDecoder();
  }

  #stopDecoder() {
    if (this.#decoder && this.#decoder.state !== "closed") this.#decoder.close();
    this.#decoder = null;
  }

  #told(words) {
    if (words === "listen opus") this.#startDecoder();
    else if (words === "listen pcm") this.#stopDecoder();
    // somebody else's is heard now
    else if (words === "microphone off" && this.#microphone) this.speak(false);
  }

  #startDecoder() {
    this.#stopDecoder();
    this.#decoder = new AudioDecoder({
      output: (sound) => {
        const channels = [0, 1].map((channel) => {
          const samples = new Float32Array(sound.numberOfFrames);
          sound.copyTo(samples, { planeIndex: Math.min(channel, sound.numberOfChannels - 1), format: "f32-planar" });
          return samples;
        });
        this.#play(sound.timestamp / 1e6, channels);
        sound.close();
      },
      // a packet that cannot be decoded: on with the next one
      error: () => this.#decoder && this.#startDecoder(),
    });
    this.#decoder.configure(OPUS);
  }

  /** A packet: number (4 bytes), time of its first frame in microseconds (8), sound. */
  #hear(packet) {
    if (packet.byteLength < 12) return;
    this.packets += 1;
    const timestamp = Number(new DataView(packet).getBigUint64(4));
    if (this.#decoder) {
      const data = new Uint8Array(packet, 12);
      this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp, duration: 20_000, data }));
    } else {
      this.#play(timestamp / 1e6, channelsOf(packet.slice(12)));
    }
  }

  #play(time, channels) {
    this.#worklet.port.postMessage({ time, channels }, channels.map(({ buffer }) => buffer));
  }

  get speaks() {
    return this.#microphone !== null;
  }

  /** Lets the desktop hear the microphone, if the person allows it, or no more. */
  async speak(on) {
    if (on === this.speaks) return;
    if (!on) {
      for (const track of this.#microphone.stream.getTracks()) track.stop();
      this.#microphone.node.disconnect();
      this.#microphone = null;
      if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send("microphone off");
    } else {
      await this.start();
      const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true } });
      await this.#context.audioWorklet.addModule("/assets/microphone-worklet.js");
      const node = new AudioWorkletNode(this.#context, "yunju-microphone", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      node.port.onmessage = ({ data }) => {
        if (this.#socket?.readyState === WebSocket.OPEN && this.#socket.bufferedAmount < BACKLOG) this.#socket.send(data);
      };
      this.#context.createMediaStreamSource(stream).connect(node);
      stream.getTracks()[0].onended = () => this.speak(false);
      this.#microphone = { stream, node };
      if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send("microphone on");
    }
    this.dispatchEvent(new Event("microphone"));
  }
}
