// A key in the page until the pixel that it changes is on the page's canvas, in Chromium: our card guest through the
// whole pipeline, and TigerVNC, in turns. Prints one JSON object for each with all times in milliseconds.

import { setTimeout as sleep } from 'node:timers/promises';
import { Person, launch, until } from '../../lib/browser.mjs';
import { Service } from '../../lib/service.mjs';
import { start as startTigerVnc } from './tigervnc.mjs';

const SIZE = { width: 1280, height: 800 };
const [ROUNDS, KEYS, WARM_UP] = [10, 20, 10];

/** Runs in the page: tells when noVNC has drawn another colour at the patch's middle since the last key went down. */
function watch() {
  const read = (canvas) => canvas.getContext('2d').getImageData(140, 260, 1, 1).data.slice(0, 3).join();
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  let [colour, down, tell] = [undefined, undefined, undefined];
  addEventListener('keydown', (event) => (down = event.timeStamp), { capture: true });
  CanvasRenderingContext2D.prototype.drawImage = function patched(...what) {
    draw.apply(this, what);
    if (!this.canvas.isConnected) return;
    const now = read(this.canvas);
    if (now !== colour && tell && down !== undefined) {
      tell(performance.now() - down);
      tell = undefined;
    }
    colour = now;
  };
  window.expectChange = () => {
    down = undefined;
    window.change = new Promise((resolve) => (tell = resolve));
  };
}

async function press(page) {
  // Awaited, because a key overtakes what the page is asked to run.
  await page.evaluate(() => window.expectChange());
  await page.keyboard.down('a');
  const change = page.evaluate(() => window.change);
  const late = sleep(5000, undefined, { ref: false });
  const time = await Promise.race([change, late]);
  await page.keyboard.up('a');
  if (time === undefined) throw new Error(`no pixel changed within 5 s of a key at ${page.url()}`);
  // Not in step with anybody's clock.
  await sleep(30 + 40 * Math.random());
  return time;
}

async function ourPage(test, browser) {
  const service = await Service.start(test, ['--stop-machines']);
  const password = (await service.yunju('user', 'add', 'me', '--admin')).trim();
  await service.yunju('create', 'card', '--image', 'card', '--owner', 'me', '--start');
  const person = await Person.arrive(browser, service.url, SIZE);
  await person.page.addInitScript(watch);
  await person.logInFirst('me', password, 'a long enough password');
  await person.visit('card');
  await person.connected();
  await person.canvas.click({ position: { x: 600, y: 500 } });
  return { name: 'yunju', page: person.page };
}

async function peerPage(test, browser) {
  const peer = await startTigerVnc(test, SIZE);
  const page = await (await browser.newContext({ viewport: SIZE })).newPage();
  await page.addInitScript(watch);
  await page.goto(peer.url);
  await until('TigerVNC in the page', async () => (await page.title()) === 'connected');
  return { name: peer.name, page };
}

async function main(test) {
  const browser = await launch(test);
  const pages = [await ourPage(test, browser), await peerPage(test, browser)];
  const times = pages.map(() => []);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [index, { page, name }] of pages.entries()) {
      await page.bringToFront();
      if (round === 0) for (let key = 0; key < WARM_UP; key += 1) await press(page);
      for (let key = 0; key < KEYS; key += 1) times[index].push(await press(page));
      console.error(`bench: ${name}: ${times[index].length} of ${ROUNDS * KEYS} keys`);
    }
  }
  pages.forEach(({ name }, index) => console.log(JSON.stringify({ monitor: name, times: times[index] })));
}

const ends = [];
try {
  await main({ after: (end) => ends.unshift(end) });
} finally {
  for (const end of ends) await end();
}
