// Sound of a stock desktop: a file that PipeWire plays in the guest is heard in the page, also by who wakes a desktop that was
// playing. How even it is is not looked at here: the guest's processor is emulated.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person, launch, until } from '../lib/browser.mjs';
import { listen } from '../lib/ears.mjs';
import { Lab } from '../lib/lab.mjs';

const PASSWORD = 'a long enough password';
const SLOW = 240_000;

/** A second of 440 Hz on the left and 660 Hz on the right, again and again, as a WAV file. */
const WAVE = String.raw`perl -e '
  $b = pack("s<*", map { (8000 * sin($_ * 440 * 6.2831853 / 48000), 8000 * sin($_ * 660 * 6.2831853 / 48000)) } 0 .. 47999);
  print pack("A4VA4A4VvvVVvvA4V", "RIFF", 36 + 300 * 192000, "WAVE", "fmt ", 16, 1, 2, 48000, 192000, 4, 16, "data", 300 * 192000), $b x 300;
' > /tmp/tone.wav`.replaceAll('\n', ' ');

const AS_USER = 'setpriv --reuid=user --regid=user --init-groups env XDG_RUNTIME_DIR=/run/user/1000';

/** Waits until one side at least has its pitch: where the guest was too slow, its median is another. */
const heard = (person) => until('the tone', async () => {
  const sides = await listen(person);
  return sides?.some(({ pitch, loudest }, side) => loudest > 0.1 && Math.abs(pitch - [440, 660][side]) < [440, 660][side] * 0.01) && sides;
}, SLOW);

test('a person hears what a stock desktop plays, also after it slept', { timeout: 1_800_000 }, async (t) => {
  const lab = await Lab.start(t);
  const browser = await launch(t);
  const oneTime = (await lab.yunju('user', 'add', 'me', '--admin')).split('\n').at(-1).trim();
  await lab.yunju('create', 'desktop', '--image', 'desktop', '--owner', 'me', '--start');
  const person = await Person.arrive(browser, lab.url, { patience: SLOW });
  await person.logInFirst('me', oneTime, PASSWORD);
  await lab.yunju('console', 'desktop', '--until', 'YUNJU-DESKTOP-READY', '--timeout', '300');

  await t.test('the desktop has a card and a sound server', async () => {
    assert.match(await lab.guest('desktop', 'cat /proc/asound/cards'), /virtio/i);
    const status = await until('the speakers', async () => {
      const text = await lab.guest('desktop', `${AS_USER} wpctl status`);
      return /\*.*Speakers/.test(text) && text;
    }, SLOW);
    assert.match(status, /Microphone/);
    const memory = await lab.guest('desktop', "ps -C pipewire,wireplumber,pipewire-pulse -o rss=,comm=; free -m | sed -n 2p");
    t.diagnostic(memory);
  });

  await t.test('what it plays is heard', async () => {
    await person.open('desktop');
    await person.click(300, 200);
    await lab.guest('desktop', WAVE);
    await lab.guest('desktop', `${AS_USER} pw-play /tmp/tone.wav > /tmp/play.log 2>&1 &`);
    t.diagnostic(JSON.stringify(await heard(person)));
  });

  await t.test('it plays on after it slept', async () => {
    await lab.yunju('suspend', 'desktop');
    await until('the page to notice', async () => (await person.part('connection-state').getAttribute('data-state')) !== 'connected', SLOW);
    await lab.yunju('resume', 'desktop');
    await person.connected();
    t.diagnostic(JSON.stringify(await heard(person)));
  });
  assert.deepEqual(person.errors, []);
});
