// Sound in Chromium: a tone of 440 Hz on the left and 660 Hz on the right that the machine plays is measured where the page
// hands it to the speakers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person, launch, until } from '../lib/browser.mjs';
import { Stage } from '../lib/stage.mjs';

/** Measures what is heard during 0.68 s: loudest, quietest 5 ms, and pitch, for each side. */
function listen(person) {
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
      let [periods, first, last] = [0, 0, 0];
      for (let at = 1; at < wave.length; at += 1) {
        if (wave[at - 1] > 0 || wave[at] <= 0) continue;
        last = at - wave[at] / (wave[at] - wave[at - 1]);
        if (periods === 0) first = last;
        periods += 1;
      }
      return { loudest: Math.max(...peaks), quietest: Math.min(...peaks), pitch: ((periods - 1) * ear.context.sampleRate) / (last - first) };
    });
  });
}

/** The tone as it is played: its pitch, its loudness, nothing missing. */
const isTone = (sides) => sides !== null && [440, 660].every((pitch, side) =>
  Math.abs(sides[side].pitch - pitch) < pitch * 0.01 && Math.abs(sides[side].loudest - 0.244) < 0.03 && sides[side].quietest > 0.2);

async function arrive(t, { flags = [], before } = {}) {
  const stage = await Stage.start(t);
  const browser = await launch(t, flags);
  const person = await Person.arrive(browser, 'about:blank');
  if (before) await person.page.addInitScript(before);
  await person.page.goto(stage.url);
  await person.connected();
  return { stage, person };
}

test('a tone is heard from the first click on, and neither sent nor heard when it is switched off', { timeout: 600_000 }, async (t) => {
  const { stage, person } = await arrive(t);
  assert.equal(stage.last('Listen'), undefined, 'nothing is sent before somebody can hear it');
  await person.click(400, 300);
  await until('the tone', async () => isTone(await listen(person)));
  const { packets, statistics } = await person.page.evaluate(async () => {
    const { player } = await import('/assets/sound.js');
    return { packets: player.packets, statistics: player.statistics };
  });
  assert.ok(packets > 30, `${packets} packets`);
  t.diagnostic(`buffer: ${JSON.stringify(statistics)}`);

  await person.part('toolbar-sound').click();
  await person.part('sound-volume').fill('50');
  await until('half of it', async () => Math.abs((await listen(person))[0].loudest - 0.122) < 0.02);
  await person.keep('sound-panel');
  await person.part('sound-on').click();
  await until('silence', async () => (await listen(person))[0].loudest === 0);
  await until('nothing sent', () => stage.last('Listen')?.on === false);
  await person.part('sound-on').click();
  await until('half of it again', async () => Math.abs((await listen(person))[0].loudest - 0.122) < 0.02);
  assert.deepEqual(person.errors, []);
});

test('a browser that decodes no Opus hears the same', { timeout: 600_000 }, async (t) => {
  const { person } = await arrive(t, { before: () => delete globalThis.AudioDecoder });
  await person.click(400, 300);
  await until('the tone', async () => isTone(await listen(person)));
  assert.deepEqual(person.errors, []);
});

test('the machine hears a microphone only while it is on', { timeout: 600_000 }, async (t) => {
  const { stage, person } = await arrive(t, { flags: ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'] });
  await person.click(400, 300);
  await until('sound', () => stage.last('Listen')?.on);
  assert.equal(stage.last('Microphone'), undefined);
  await person.part('toolbar-sound').click();
  await person.part('sound-microphone').click();
  await until('the beeps of a microphone', () => stage.requests.some(({ Microphone: heard }) => heard?.loudest > 1000));
  await until('a sign of it', async () => /●/.test(await person.part('toolbar-sound').textContent()));
  await person.part('sound-microphone').click();
  await until('the end', async () => {
    const { length } = stage.requests.filter((request) => 'Microphone' in request);
    await new Promise((done) => setTimeout(done, 1000));
    return stage.requests.filter((request) => 'Microphone' in request).length === length;
  });
  assert.deepEqual(person.errors, []);
});

test('a microphone that is refused is said to be', { timeout: 600_000 }, async (t) => {
  const { person } = await arrive(t);
  await person.part('toolbar-sound').click();
  await person.part('sound-microphone').click();
  await until('a word', async () => (await person.part('sound-refusal').textContent()) !== '');
  assert.equal(await person.part('sound-microphone').isChecked(), false);
});
