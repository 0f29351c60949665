// The side channel in a real desktop, from programs to the browser: labwc, the agent, vsock, the proxy, the page.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person, launch, until } from '../lib/browser.mjs';
import { Lab } from '../lib/lab.mjs';

const PASSWORD = 'a long enough password';
const SLOW = 180_000;
const AS_USER = 'setpriv --reuid=user --regid=user --init-groups env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 WAYLAND_DISPLAY=wayland-0';

test('what is copied in the desktop can be pasted in the browser, also after it slept', { timeout: 1_500_000 }, async (t) => {
  const lab = await Lab.start(t);
  const oneTime = (await lab.yunju('user', 'add', 'me', '--admin')).split('\n').at(-1).trim();
  await lab.yunju('create', 'desktop', '--image', 'desktop', '--owner', 'me');
  await lab.yunju('start', 'desktop');
  await lab.yunju('console', 'desktop', '--until', 'YUNJU-DESKTOP-READY', '--timeout', '300');
  const guest = (command) => lab.guest('desktop', command);
  /** Something that runs on when the console is left. */
  const leave = (command) => guest(`(${AS_USER} sh -c '${command}' >/dev/null 2>&1 </dev/null &)`);
  const person = await Person.arrive(await launch(t), lab.url, { patience: SLOW, permissions: ['clipboard-read', 'clipboard-write'] });
  await person.logInFirst('me', oneTime, PASSWORD);
  await person.open('desktop');

  await t.test('the agent is there and has taken the layout on', async () => {
    await person.page.locator('body[data-layout]').waitFor();
  });

  await t.test('text and a picture that are copied in the guest are here', async () => {
    await leave('printf "from the guest: 汉字" | wl-copy');
    await until('the text', () => person.page.evaluate(async () => (await navigator.clipboard.readText()) === 'from the guest: 汉字'), SLOW);
    await leave('wl-copy -t image/png < /usr/share/backgrounds/yunju.png');
    await until('the picture', () => person.page.evaluate(async () => (await navigator.clipboard.read())[0].types.includes('image/png')), SLOW);
  });

  await t.test('what is copied here can be pasted there', async () => {
    await person.page.evaluate(() => navigator.clipboard.writeText('from here: 汉'));
    await person.click(640, 300);
    await person.page.keyboard.press('Control+v', { delay: 100 });
    await until('the text', async () => /from here: 汉/.test(await guest(`timeout 5 ${AS_USER} wl-paste || true`)), SLOW);
  });

  await t.test('the agent comes back after the desktop slept', async () => {
    await lab.yunju('suspend', 'desktop');
    await lab.yunju('start', 'desktop');
    await person.page.reload();
    await person.connected();
    await person.page.locator('body[data-layout]').waitFor();
    await leave('printf "after the sleep" | wl-copy');
    await until('the text', () => person.page.evaluate(async () => (await navigator.clipboard.readText()) === 'after the sleep'), SLOW);
  });
  assert.deepEqual(person.errors, []);
});
