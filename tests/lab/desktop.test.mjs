// Stock Debian under real KVM, from a person's browser to the guest and back. Slow but true.

import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PNG } from 'pngjs';
import { Person, launch, until } from '../lib/browser.mjs';
import { Lab } from '../lib/lab.mjs';

const PASSWORD = 'a long enough password';
const SLOW = 180_000;

/** How many different colours a picture has, and how much of it the most frequent one covers. */
function colours(bytes) {
  const { data } = PNG.sync.read(bytes);
  const counts = new Map();
  for (let i = 0; i < data.length; i += 4) {
    const colour = data.readUInt32BE(i);
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  return { different: counts.size, most: Math.max(...counts.values()) / (data.length / 4) };
}

/** Where the panel is: a row of one dark colour at the bottom. */
const panelRow = async (person) => (await person.size()).height - 20;

test('a person works at a Debian desktop in a browser tab', { timeout: 1_800_000 }, async (t) => {
  const lab = await Lab.start(t);
  const browser = await launch(t);
  const oneTime = (await lab.yunju('user', 'add', 'me', '--admin')).split('\n').at(-1).trim();
  await lab.yunju('create', 'desktop', '--image', 'desktop', '--owner', 'me');
  const person = await Person.arrive(browser, lab.url, { patience: SLOW });

  await t.test('logs in with the one-time password and starts the desktop', async () => {
    await person.logInFirst('me', oneTime, PASSWORD);
    await person.card('desktop').getByTestId('desktop-start').click();
    await person.page.locator('[data-name="desktop"][data-state="running"]').waitFor();
    await lab.yunju('console', 'desktop', '--until', 'YUNJU-DESKTOP-READY', '--timeout', '300');
  });

  await t.test('sees it', async () => {
    await person.open('desktop');
    await person.fitted();
    await until('a wallpaper and a panel', async () => {
      const { different, most } = colours(await person.picture('desktop'));
      const { width } = await person.size();
      const panel = await person.pixels([[width / 2, await panelRow(person)], [width - 300, await panelRow(person)]]);
      const dark = panel.every((pixel) => pixel.reduce((sum, value) => sum + value) < 200);
      return different > 2000 && most < 0.3 && dark && panel[0].join() === panel[1].join();
    }, SLOW);
    await person.keep('desktop-page');
  });

  await t.test('opens a terminal by mouse, and what is typed runs in the guest', async () => {
    await person.click(69, await panelRow(person));
    await until('a shell in a window', () => lab.guest('desktop', 'pgrep -u user -x bash'), SLOW);
    await sleep(5000);
    await person.type('echo "typed $((6*7))" > ~/proof.txt\n');
    await until('the file', async () => /typed 42/.test(await lab.guest('desktop', 'cat /home/user/proof.txt')), SLOW);
    await person.keep('terminal');
  });

  await t.test('resizes the window and the guest follows', async () => {
    await person.page.setViewportSize({ width: 1100, height: 760 });
    await person.fitted();
    const modes = await lab.guest('desktop', 'cat /sys/class/drm/card0-Virtual-1/modes | head -n 1');
    assert.match(modes, new RegExp(`${(await person.size()).width}x${(await person.size()).height}`));
    await person.keep('resized');
  });

  await t.test('two viewers see the same picture', async () => {
    const other = await Person.arrive(browser, lab.url, { width: 1100, height: 760, patience: SLOW });
    await other.logIn('me', PASSWORD);
    await other.part('desktop-list').waitFor();
    await other.open('desktop');
    await until('the same picture', async () => {
      const { width, height } = await person.size();
      const pictures = await Promise.all([person, other].map((p) => p.rectangle(0, 0, width, height - 60)));
      return pictures[0].equals(pictures[1]);
    }, SLOW);
    await other.page.context().close();
  });

  await t.test('a VNC viewer sees it too', async () => {
    await lab.run('yunju open desktop --vnc 5999 > /tmp/vnc.log 2>&1 &');
    const probe = path.join(import.meta.dirname, '../lib/rfb-look.py');
    const seen = await until('a picture by RFB', () => lab.run(`python3 '${probe}' 5999`), SLOW);
    const { width, height, colours: different } = JSON.parse(seen);
    assert.deepEqual({ width, height }, await person.size());
    assert.ok(different > 2000, `${different} colours`);
  });

  await t.test('reaches the network by user-mode networking', async () => {
    const lease = await until('an address', () => lab.guest('desktop', 'ip -color=never -4 -o addr show scope global'), SLOW);
    assert.match(lease, /inet \d+\.\d+\.\d+\.\d+/);
  });

  await t.test('installs a program, which stays', async () => {
    await lab.guest('desktop', 'apt-get -q update > /tmp/apt.log 2>&1 && apt-get -qy install sl >> /tmp/apt.log 2>&1', 600);
    assert.match(await lab.guest('desktop', 'ls /usr/games/sl'), /sl/);
  });

  await t.test('stops it, starts it again, and the file and the program are still there', async () => {
    await lab.yunju('stop', 'desktop');
    const [stopped] = JSON.parse(await lab.yunju('ls', '-o', 'json'));
    assert.equal(stopped.state, 'stopped');
    await lab.yunju('start', 'desktop');
    await lab.yunju('console', 'desktop', '--until', 'YUNJU-DESKTOP-READY', '--timeout', '300');
    assert.match(await lab.guest('desktop', 'cat /home/user/proof.txt'), /typed 42/);
    assert.match(await lab.guest('desktop', 'ls /usr/games/sl'), /sl/);
    assert.match(await lab.guest('desktop', 'df -h /'), / 16G /, 'the file system has grown to its disk');
    await person.connected();
    await person.keep('started-again');
  });
  assert.deepEqual(person.errors, []);
});
