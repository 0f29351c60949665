// Hands what a microphone hears to the page, in pieces of 20 ms. Runs on the browser's thread for sound.

class Microphone extends AudioWorkletProcessor {
  #piece = new Int16Array(sampleRate / 50);
  #filled = 0;

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.#piece[this.#filled] = Math.max(-1, Math.min(1, sample)) * 32767;
      this.#filled += 1;
      if (this.#filled < this.#piece.length) continue;
      this.port.postMessage(this.#piece.buffer, [this.#piece.buffer]);
      this.#piece = new Int16Array(sampleRate / 50);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("yunju-microphone", Microphone);
