// What a desktop's page plays, measured where it is handed to the speakers.

/** Measures what a page plays during 0.68 s: loudest, quietest 5 ms, and pitch, for each side; null before it may play. */
export function listen(person) {
  return person.page.evaluate(async () => {
    const { player } = await import('/assets/sound.js');
    if (!player.output) return null;
    if (!window.ears) {
      const { context } = player.output;
      const splitter = new ChannelSplitterNode(context, { numberOfOutputs: 2 });
      player.output.connect(splitter);
      window.ears = [0, 1].map((side) => {
        const ear = new AnalyserNode(context, { fftSize: 32768 });
        splitter.connect(ear, side);
        return ear;
      });
      await new Promise((done) => setTimeout(done, 700));
    }
    return window.ears.map((ear) => {
      const wave = new Float32Array(ear.fftSize);
      ear.getFloatTimeDomainData(wave);
      const peaks = [];
      for (let at = 0; at + 240 <= wave.length; at += 240) peaks.push(wave.subarray(at, at + 240).reduce((most, v) => Math.max(most, Math.abs(v)), 0));
      // the pitch of most of it, should something be missing
      const periods = [];
      let last = NaN;
      for (let at = 1; at < wave.length; at += 1) {
        if (wave[at - 1] > 0 || wave[at] <= 0) continue;
        const now = at - wave[at] / (wave[at] - wave[at - 1]);
        if (now > last) periods.push(now - last);
        last = now;
      }
      periods.sort((x, y) => x - y);
      return { loudest: Math.max(...peaks), quietest: Math.min(...peaks), pitch: ear.context.sampleRate / periods[periods.length >> 1] };
    });
  });
}

/**
 * Presses keys at which the machine changes a pixel and falls silent at one time, and tells how much later (negative: earlier)
 * silence is heard than the pixel is seen, in milliseconds, one for each press.
 */
export function skews(person, [x, y], presses) {
  return person.page.evaluate(async ([left, top, count]) => {
    const [{ player }, { session }] = await Promise.all([import('/assets/sound.js'), import('/assets/session.js')]);
    const { context } = player.output;
    const code = `registerProcessor('edge', class extends AudioWorkletProcessor {
      loud = false;
      process([[samples]]) {
        const loud = (samples ?? []).some((sample) => Math.abs(sample) > 0.02);
        if (this.loud && !loud) this.port.postMessage(currentTime);
        this.loud = loud;
        return true;
      }
    });`;
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
    const edge = new AudioWorkletNode(context, 'edge', { numberOfOutputs: 0 });
    player.output.connect(edge);
    const pixels = document.querySelector('[data-testid="desktop-screen"] canvas').getContext('2d');
    const colour = () => pixels.getImageData(left, top, 1, 1).data.join();
    const sleep = (time) => new Promise((done) => setTimeout(done, time));
    const measured = [];
    for (let press = 0; press < count; press += 1) {
      await sleep(700);
      const before = colour();
      const heard = new Promise((done) => (edge.port.onmessage = ({ data }) => {
        // when what was handed over at that time is to be heard
        const { contextTime, performanceTime } = context.getOutputTimestamp();
        done(performanceTime + (data - contextTime) * 1000);
      }));
      const seen = new Promise((done) => {
        const look = (now) => (colour() === before ? requestAnimationFrame(look) : done(now));
        requestAnimationFrame(look);
      });
      session.rfb.sendKey(0x61, 'KeyA', true);
      measured.push(await Promise.race([Promise.all([heard, seen]).then(([sound, sight]) => sound - sight), sleep(3000)]));
      session.rfb.sendKey(0x61, 'KeyA', false);
    }
    return measured.filter((value) => value !== undefined);
  }, [x, y, presses]);
}

/** Whether it has a pitch on the left and one on the right, within 1 %. */
export const hasPitch = (sides, ...pitches) =>
  sides !== null && pitches.every((pitch, side) => Math.abs(sides[side].pitch - pitch) < pitch * 0.01);
