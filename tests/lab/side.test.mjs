// Clipboard, typed text and keyboard layout in a real desktop: a browser, its page, the proxy, vsock, the agent, labwc, programs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Person, launch, until } from '../lib/browser.mjs';
import { Lab } from '../lib/lab.mjs';

const PASSWORD = 'a long enough password';
const SLOW = 180_000;
const AS_USER = 'setpriv --reuid=user --regid=user --init-groups env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 WAYLAND_DISPLAY=wayland-0';

test('what is copied, composed and laid out in the browser is so in the desktop', { timeout: 1_500_000 }, async (t) => {
  const lab = await Lab.start(t);
  const oneTime = (await lab.yunju('user', 'add', 'me', '--admin')).split('\n').at(-1).trim();
  await lab.yunju('create', 'desktop', '--image', 'desktop', '--owner', 'me');
  await lab.yunju('start', 'desktop');
  await lab.yunju('console', 'desktop', '--until', 'YUNJU-DESKTOP-READY', '--timeout', '300');
  const guest = (command) => lab.guest('desktop', command);
  const left = async () => {
    const { width, height } = await person.size();
    return person.rectangle(20, 60, width / 2 - 40, height - 160);
  };
  const white = (pixels) => {
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i] > 250 && pixels[i + 1] > 250 && pixels[i + 2] > 250) count += 1;
    return count / (pixels.length / 4);
  };
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

  await t.test('text is typed as text in a text editor', async () => {
    await guest(`cd /home/user; xargs -0 -a /proc/$(pgrep -xo waybar)/environ sh -c '(setpriv --reuid=user --regid=user --init-groups env -i "$@" mousepad typed.txt > /dev/null 2>&1 &)' start`);
    // a key before it has a window is another window's
    await until('its window', async () => white(await left()) > 0.2, SLOW);
    await until('its window at the left', async () => {
      await person.page.keyboard.press('Meta+ArrowLeft');
      return white(await left()) > 0.9;
    }, SLOW);
    await person.click(300, 300);
    await person.tool('text');
    await person.part('setting-text').check();
    await person.leaveToolbar();
    const session = await person.page.context().newCDPSession(person.page);
    await session.send('Input.insertText', { text: '中文输入，déjà vu\n' });
    await sleep(3000);
    await person.keep('typed-text');
    await person.page.keyboard.press('Control+s', { delay: 100 });
    await until('the file', async () => /中文输入，déjà vu/.test(await guest('cat /home/user/typed.txt')), SLOW);
    await person.tool('text');
    await person.part('setting-text').uncheck();
  });

  await t.test('on a German keyboard y and z change places', async () => {
    await person.part('layout').selectOption('de');
    await person.page.locator('body[data-layout="de"]').waitFor();
    await person.leaveToolbar();
    await sleep(2000);
    await person.type('yz', 200);
    await person.page.keyboard.press('Control+s', { delay: 100 });
    await until('z and y', async () => /zy/.test(await guest('cat /home/user/typed.txt')), SLOW);
    await person.keep('german');
  });

  await t.test('what is copied here is pasted there', async () => {
    await person.page.evaluate(() => navigator.clipboard.writeText('from here: 汉'));
    await person.page.keyboard.press('Control+v', { delay: 100 });
    await person.page.keyboard.press('Control+s', { delay: 100 });
    await until('the text', async () => /from here: 汉/.test(await guest('cat /home/user/typed.txt')), SLOW);
    await person.page.evaluate(async () => {
      const canvas = new OffscreenCanvas(9, 7);
      canvas.getContext('2d').fillRect(0, 0, 9, 7);
      await navigator.clipboard.write([new ClipboardItem({ 'image/png': await canvas.convertToBlob() })]);
    });
    await person.page.keyboard.press('Control+v', { delay: 100 });
    await until('the picture', async () => /PNG image data, 9 x 7/.test(await guest(`${AS_USER} wl-paste -t image/png > /tmp/here.png; file /tmp/here.png`)), SLOW);
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
