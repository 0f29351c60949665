// The page of a desktop: its toolbar, its languages, how the screen lies in the window, and how it comes back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PNG } from 'pngjs';
import { Person, launch, until } from '../lib/browser.mjs';
import { read } from '../lib/card.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';

/** A running card, and a way for people to come. */
async function desk(t) {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'me', '--admin')).trim();
  await service.yunju('create', 'card', '--image', 'card', '--owner', 'me', '--start');
  const browser = await launch(t);
  let known = false;
  const arrive = async (options = {}) => {
    const person = await Person.arrive(browser, service.url, options);
    if (known) await person.logIn('me', PASSWORD);
    else await person.logInFirst('me', oneTime, PASSWORD);
    known = true;
    await person.part('user-name').waitFor();
    return person;
  };
  return { service, arrive };
}

const sees = (person, what, condition) =>
  until(what, async () => {
    const card = await read(person);
    return condition(card) && card;
  });

/** What is seen of the screen in the window, in the window's pixels, beside what the desktop shows there. */
async function sharp(person, [x, y, width, height]) {
  const shot = PNG.sync.read(await person.page.screenshot());
  const desktop = await person.rectangle(x, y, width, height);
  const box = await person.canvas.boundingBox();
  const { width: columns } = await person.size();
  assert.equal(shot.width, Math.round(columns), 'the screen is as wide as the window');
  const per = shot.width / (await person.page.evaluate(() => innerWidth));
  let wrong = 0;
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const at = ((y + Math.round(box.y * per) + row) * shot.width + x + column) * 4;
      const should = (row * width + column) * 4;
      for (let c = 0; c < 3; c += 1) if (shot.data[at + c] !== desktop[should + c]) wrong += 1;
    }
  }
  return wrong;
}

test('the pages speak the language of the browser, and another one when asked, from then on', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive({ locale: 'zh-CN' });
  await until('the portal in Chinese', async () => (await person.part('desktop-create').innerText()) === '新建桌面');
  await person.keep('desktops-zh');
  await person.openFramed('card');
  assert.equal(await person.view.evaluate(() => document.documentElement.lang), 'zh-CN');
  assert.equal(await person.part('connection-state').textContent(), '已连接');
  await person.tool('power');
  await until('the panel', () => person.part('power-suspend').isVisible());
  assert.match(await person.part('panel-power').innerText(), /休眠/);
  assert.doesNotMatch(await person.part('panel-power').innerText(), /[a-z]{3}/i);
  await person.keep('desktop-power-zh');
  await person.tool('display');
  await person.keep('desktop-display-zh');
  await person.part('language-en').click();
  await until('the desktop in English', async () => (await person.part('connection-state').textContent()) === 'connected');
  await person.page.goto(person.url);
  await until('the portal in English', async () => (await person.part('desktop-create').innerText()) === 'New desktop');
  await person.logOut();
  await person.part('login-form').waitFor();
  assert.equal(await person.part('login-submit').innerText(), 'Log in');
  await person.part('other-language').click();
  await until('the login page in Chinese', async () => (await person.part('login-submit').innerText()) === '登录');
  await person.logIn('me', 'not the password');
  await until('a refusal in Chinese', async () => /不正确/.test(await person.part('login-error').innerText()));
  await person.keep('login-zh');
  assert.deepEqual(person.errors, []);
});

test('all can be done with the keyboard, which goes to the desktop again afterwards', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive();
  const { keyboard } = person.page;
  await person.open('card');
  await person.type('ab');
  await sees(person, 'two keys', (card) => card.presses === 2);
  const chord = async () => {
    for (const key of ['Control', 'Alt', 'Shift']) await keyboard.down(key);
    for (const key of ['Shift', 'Alt', 'Control']) await keyboard.up(key);
  };
  const focused = () => person.page.evaluate(() => document.activeElement?.dataset.testid);
  await chord();
  await until('the keyboard in the toolbar', async () => (await focused())?.startsWith('toolbar-'));
  await sees(person, 'the three keys pressed and let go', (card) => card.presses === 5 && !card.down);
  await keyboard.press('Home');
  assert.equal(await focused(), 'toolbar-home');
  await keyboard.press('ArrowRight');
  assert.equal(await focused(), 'toolbar-keys');
  await keyboard.press('Enter');
  await person.part('panel-keys').waitFor();
  assert.equal(await focused(), 'key-control-alt-delete');
  await keyboard.press('Enter');
  await sees(person, 'Ctrl+Alt+Del', (card) => card.presses === 8 && !card.down);
  await keyboard.press('Escape');
  await person.part('panel-keys').waitFor({ state: 'hidden' });
  assert.equal(await focused(), 'toolbar-keys');
  await keyboard.press('Escape');
  await person.type('c');
  await sees(person, 'the next key', (card) => card.presses === 9);
  await until('the toolbar out of the way', async () => (await person.part('toolbar').getAttribute('data-quiet')) === 'true');
  await person.keep('desktop-quiet');
  assert.deepEqual(person.errors, []);
});

test('keys that are held down stay so until they are let go', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive();
  await person.open('card');
  await person.tool('keys');
  await person.part('hold-control').click();
  await sees(person, 'Ctrl down', (card) => card.presses === 1 && card.key === 29 && card.down);
  await person.keep('desktop-keys');
  await person.part('hold-control').click();
  await sees(person, 'Ctrl up', (card) => card.presses === 1 && card.key === 29 && !card.down);
});

for (const density of [2, 1.5]) {
  test(`with ${density} pixels of the screen to one of the page, each of the desktop's is one of the screen`, async (t) => {
    const { arrive } = await desk(t);
    const person = await arrive({ width: 1000, height: 700, deviceScaleFactor: density });
    await person.open('card');
    await until('the size in pixels of the screen', async () => {
      const { width, height } = await person.size();
      return width === 1000 * density && height === 700 * density;
    });
    await sees(person, 'a whole card', (card) => card.starts === 1);
    await person.move(500, 600);
    await sees(person, 'the pointer where it is', (card) => Math.abs(card.x - 500) <= 1 && Math.abs(card.y - 600) <= 1);
    await until('the toolbar out of the way', async () => (await person.part('toolbar').getAttribute('data-quiet')) === 'true');
    await until('the very pixels', async () => (await sharp(person, [30, 130, 320, 340])) === 0);
    await person.keep(`desktop-density-${density}`);
    if (density !== 2) return;
    await person.choose('display', 'zoom-200');
    await until('things twice as large', async () => (await person.size()).width === 1000);
  });
}

test('a phone: the desktop fills it, follows its turns, and the toolbar has room', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive({ width: 390, height: 844, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
  const size = (width, height) => until(`${width}x${height}`, async () => {
    const now = await person.size();
    return now.width === width && now.height === height;
  });
  await person.open('card');
  await size(780, 1688);
  await person.keep('phone');
  const inside = async (name) => {
    const box = await person.part(name).boundingBox();
    const { width, height } = person.page.viewportSize();
    assert.ok(box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height, `${name} lies in the window: ${JSON.stringify(box)}`);
  };
  const room = () => person.part('tools').evaluate((tools) => tools.scrollWidth <= tools.clientWidth);
  assert.ok(await room(), 'all buttons have room');
  for (const tool of ['keys', 'display', 'power']) {
    await person.tool(tool);
    await person.part(`panel-${tool}`).waitFor();
    await inside('tools');
    await inside(`panel-${tool}`);
    await person.keep(`phone-${tool}`);
  }
  await person.leaveToolbar();
  await person.page.setViewportSize({ width: 844, height: 390 });
  await size(1688, 780);
  await person.keep('phone-turned');
  await person.page.setViewportSize({ width: 390, height: 844 });
  await size(780, 1688);
  // how long it takes from the turn to the desktop's new size, as the page sees it
  const took = await person.page.evaluate(() => new Promise((done) => {
    const canvas = document.querySelector('[data-testid="desktop-screen"] canvas');
    const stage = document.querySelector('[data-testid="stage"]');
    const before = canvas.height;
    const begun = performance.now();
    stage.style.maxHeight = '400px';
    const look = () => (canvas.height !== before ? done(performance.now() - begun) : setTimeout(look, 4));
    look();
  }));
  t.diagnostic(`the desktop had the window's size after ${took.toFixed(0)} ms`);
  assert.deepEqual(person.errors, []);
});

test('who only looks on sends no key, and neither does a window of another size change the desktop', async (t) => {
  const { arrive } = await desk(t);
  const [worker, watcher] = [await arrive({ width: 1200, height: 800 }), await arrive({ width: 700, height: 700 })];
  await watcher.open('card');
  await watcher.choose('display', 'setting-view-only');
  await watcher.part('view-only').waitFor();
  await watcher.leaveToolbar();
  await worker.open('card');
  await until('the size of who works', async () => (await watcher.size()).width === 1200);
  await watcher.page.setViewportSize({ width: 640, height: 640 });
  await watcher.type('xyz');
  await watcher.page.mouse.click(300, 300);
  await worker.type('a');
  await sees(watcher, 'one key', (card) => card.presses === 1);
  await until('the whole screen in the smaller window', async () => {
    const box = await watcher.canvas.boundingBox();
    return box.width <= 640 && box.x >= 0 && Math.abs(box.width / box.height - 1.5) < 0.01;
  });
  await watcher.keep('desktop-view-only');
  await worker.type('b');
  for (const person of [worker, watcher]) await sees(person, 'two keys and none of who only looks on', (card) => card.presses === 2);
  assert.equal((await worker.size()).width, 1200);
});

test('of two windows the one that came or changed last has its size, and they do not quarrel', async (t) => {
  const { arrive } = await desk(t);
  // the first one finds the desktop in its own size and need not ask
  const [first, second] = [await arrive({ width: 1280, height: 800 }), await arrive({ width: 700, height: 640 })];
  const both = async (width, height) => {
    for (const person of [first, second]) {
      await until(`${width}x${height}`, async () => {
        const size = await person.size();
        return size.width === width && size.height === height;
      });
    }
  };
  await first.open('card');
  await sees(first, 'a whole card', (card) => card.starts === 1);
  const sizes = [];
  await first.page.exposeFunction('sized', (size) => sizes.push(size));
  await first.page.evaluate(async () => {
    const { session } = await import('/assets/session.js');
    session.link.addEventListener('size', ({ detail }) => window.sized(`${detail.width}x${detail.height}`));
  });
  await second.open('card');
  await both(700, 640);
  await first.page.setViewportSize({ width: 900, height: 600 });
  await both(900, 600);
  await second.type('a');
  await sees(first, 'a key of the other', (card) => card.presses === 1);
  assert.deepEqual([...new Set(sizes)], ['700x640', '900x600']);
  assert.equal(sizes.at(-1), '900x600');
});

test('the statistics say how the stream is doing, and the quality that is asked for reaches the proxy', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive();
  const asked = [];
  person.page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => {
    // SetEncodings: 2, padding, count, then four bytes each
    if (payload[0] !== 2 || payload.length < 8) return;
    asked.push(Array.from({ length: payload.readUInt16BE(2) }, (_, n) => payload.readInt32BE(4 + 4 * n)));
  }));
  await person.open('card');
  await person.choose('display', 'setting-statistics');
  const value = (name) => person.part(`statistics-${name}`).innerText();
  await until('a latency', async () => /^[\d.]+ ms$/.test(await value('latency')));
  await until('the size', async () => /^1280 × 860 · 100%$/.test(await value('size')));
  await until('frames while something moves', async () => {
    for (let n = 0; n < 8; n += 1) await person.page.mouse.move(300 + 20 * n, 500);
    return parseInt(await value('fps'), 10) > 0 && /Lossless \d+%/.test(await value('codecs'));
  });
  await person.keep('desktop-statistics');
  await person.choose('display', 'quality-sharp');
  await until('the best quality asked for', () => asked.at(-1)?.includes(-32 + 9));
  await person.choose('display', 'quality-thrifty');
  await until('little asked for', () => asked.at(-1)?.includes(-32 + 2));
  await person.page.reload();
  await person.connected();
  await until('what was chosen is remembered', () => asked.at(-1)?.includes(-32 + 2) && person.part('statistics').isVisible());
});

test('the page comes back when the proxy is killed, with what was last seen meanwhile', async (t) => {
  const { service, arrive } = await desk(t);
  const person = await arrive();
  await person.open('card');
  await person.type('abc');
  await sees(person, 'the keys', (card) => card.presses === 3);
  const processes = await service.processes('card');
  const states = await person.states();
  process.kill(processes.proxy.pid, 'SIGKILL');
  await until('a new connection', async () => /^reconnecting,(.*,)?connected$/.test((await states()).join()), 60_000);
  await sees(person, 'the same machine', (card) => card.presses === 3 && card.starts === 1);
  await person.type('d');
  await sees(person, 'the next key', (card) => card.presses === 4);
  assert.deepEqual(person.errors, []);
});

test('a page whose service is away says so, tries again ever more rarely, and at once when asked', async (t) => {
  const { service, arrive } = await desk(t);
  const person = await arrive();
  await person.open('card');
  await person.type('abc');
  await sees(person, 'the keys', (card) => card.presses === 3);
  await service.end('SIGKILL');
  await person.part('veil-start').waitFor();
  assert.match(await person.part('veil-text').innerText(), /The service cannot be reached\. Next try in \d+ s\./);
  assert.equal(await person.part('desktop-still').locator('canvas').count(), 1, 'the last picture stays');
  await person.keep('desktop-reconnecting');
  await service.serve();
  if (await person.part('veil-start').isVisible()) await person.part('veil-start').click({ timeout: 1000 }).catch(() => {});
  await person.connected();
  await sees(person, 'the same machine', (card) => card.presses === 3 && card.starts === 1);
  assert.equal(await person.part('desktop-still').locator('canvas').count(), 0);
});

test('a connection that has fallen silent is given up and made anew', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive();
  let deaf = false;
  // the first connection goes deaf when told; those after it are as usual
  await person.page.routeWebSocket(/\/ws$/, (page) => {
    const server = page.connectToServer();
    const first = !deaf;
    page.onMessage((message) => !(first && deaf) && server.send(message));
    server.onMessage((message) => !(first && deaf) && page.send(message));
  });
  await person.open('card');
  await person.type('a');
  await sees(person, 'a key', (card) => card.presses === 1);
  const states = await person.states();
  deaf = true;
  await until('a new connection', async () => /^reconnecting,(.*,)?connected$/.test((await states()).join()), 60_000);
  await person.type('b');
  await sees(person, 'the next key', (card) => card.presses === 2);
  assert.deepEqual(person.errors, []);
});

test('the screen can be seen pixel by pixel, and scrolled', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive({ width: 1200, height: 800 });
  await person.open('card');
  await person.fitted();
  await person.choose('display', 'size-actual');
  await person.leaveToolbar();
  await person.page.setViewportSize({ width: 600, height: 500 });
  const [box, size] = [await person.canvas.boundingBox(), await person.size()];
  assert.deepEqual([box.width, box.height], [size.width, size.height]);
  const scrolled = await person.part('stage').evaluate((stage) => {
    stage.scrollTo(300, 200);
    return [stage.scrollLeft, stage.scrollTop];
  });
  assert.deepEqual(scrolled, [300, 200]);
  await person.move(700, 400);
  await sees(person, 'the pointer where it is seen', (card) => Math.abs(card.x - 700) <= 1 && Math.abs(card.y - 400) <= 1);
});

test('a desktop is restarted, kept and shut down from its page, after a question where something would be lost', async (t) => {
  const { service, arrive } = await desk(t);
  const person = await arrive({ colorScheme: 'dark' });
  await person.open('card');
  await sees(person, 'the first start', (card) => card.starts === 1);
  await person.choose('power', 'power-keep');
  await until('a word that it is kept', () => person.part('notice').isVisible());
  assert.equal(JSON.parse(await service.yunju('snapshot', 'ls', 'card', '-o', 'json')).length, 1);
  await person.choose('power', 'power-restart');
  await person.part('confirm-cancel').click();
  await person.tool('power');
  await person.keep('desktop-power-dark');
  await person.part('power-restart').click();
  await person.part('confirm-ok').click();
  await sees(person, 'the second start', (card) => card.starts === 2);
  await person.choose('power', 'power-stop');
  await person.keep('desktop-confirm-dark');
  await person.part('confirm-ok').click();
  await person.state('stopped');
  await person.keep('desktop-stopped-dark');
  assert.deepEqual(person.errors, []);
});

test('in full screen the desktop is given the keys that a browser keeps, and leaving takes them back', async (t) => {
  const { arrive } = await desk(t);
  const person = await arrive();
  await person.page.addInitScript(() => {
    window.keys = [];
    Object.defineProperty(navigator, 'keyboard', {
      value: { lock: async () => window.keys.push('locked'), unlock: () => window.keys.push('unlocked') },
    });
  });
  await person.open('card');
  await person.tool('fullscreen');
  await until('full screen', () => person.page.evaluate(() => document.fullscreenElement !== null && window.keys.join() === 'locked'));
  assert.equal(await person.part('toolbar-fullscreen').getAttribute('aria-pressed'), 'true');
  await person.type('a');
  await sees(person, 'a key', (card) => card.presses === 1);
  await person.tool('fullscreen');
  await until('the window again', () => person.page.evaluate(() => document.fullscreenElement === null && window.keys.join() === 'locked,unlocked'));
  assert.deepEqual(person.errors, []);
});

test('a device without a network says so, and comes back with the network', async (t) => {
  const { service, arrive } = await desk(t);
  const person = await arrive();
  await person.open('card');
  await sees(person, 'the first start', (card) => card.starts === 1);
  await person.page.context().setOffline(true);
  process.kill((await service.processes('card')).proxy.pid, 'SIGKILL');
  await until('words about the network', async () => (await person.part('veil-title').innerText()) === 'This device is offline');
  await person.keep('desktop-offline');
  await person.page.context().setOffline(false);
  await person.connected();
  await sees(person, 'the same machine', (card) => card.starts === 1);
});
