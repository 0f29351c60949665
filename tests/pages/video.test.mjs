// A video through the page's own link and noVNC in Chromium: as H.264 where the browser decodes it, as JPEG where it does
// not, in its colours while it plays, and exact when it stops. The machine is only a display socket:
// vnc-proxy/examples/fake-machine.rs, which paints what `surface` says.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { launch, scratch, until } from '../lib/browser.mjs';
import { BINARIES, ROOT, freePort } from '../lib/service.mjs';

const PAGES = path.join(ROOT, 'manager/web/pages');
const NOVNC = path.join(ROOT, 'manager/web/node_modules/@novnc/novnc');
const MACHINE = path.join(ROOT, 'target/debug/examples/fake-machine');

const page = (port, h264) => `<!doctype html><title>starting</title><div id="screen" style="width: 900px; height: 700px"></div>
<script type="module">
${h264 ? '' : 'delete globalThis.VideoDecoder;'}
const { default: RFB } = await import('/assets/novnc/core/rfb.js');
const { Link } = await import('/assets/link.js');
const { supportsWebCodecsH264Decode } = await import('/assets/novnc/core/util/browser.js');
window.supported = supportsWebCodecsH264Decode;
window.link = new Link('ws://127.0.0.1:${port}/');
window.rfb = new RFB(document.getElementById('screen'), link);
rfb.addEventListener('connect', () => (document.title = 'connected'));
rfb.addEventListener('disconnect', () => (document.title = 'disconnected'));

// What the machine paints where the video is, apart from a grain of 0 to 15 that all three colours share.
const video = { x: 100, y: 320, width: 480, height: 270 };
const surface = (x, y) => [30 + Math.floor((x * 200) / video.width), 30 + Math.floor((y * 200) / video.height), 90];

/** How far the video is from the surface: the mean colours of each 16 x 16 pixels, the worst and all of them together, and pixels that are not what was painted. */
window.compare = () => {
  const canvas = document.querySelector('canvas');
  const { data } = canvas.getContext('2d').getImageData(video.x, video.y, video.width, video.height);
  const sums = new Map();
  let wrong = 0;
  for (let y = 0; y < video.height; y += 1) {
    for (let x = 0; x < video.width; x += 1) {
      const at = (y * video.width + x) * 4;
      const should = surface(x, y);
      const grain = data[at + 2] - should[2];
      if (grain < 0 || grain > 15 || data[at] !== should[0] + grain || data[at + 1] !== should[1] + grain) wrong += 1;
      const block = (y >> 4) * 1000 + (x >> 4);
      const sum = sums.get(block) ?? [0, 0, 0, 0];
      for (let c = 0; c < 3; c += 1) sum[c] += data[at + c] - should[c];
      sum[3] += 1;
      sums.set(block, sum);
    }
  }
  // the grain's own mean is 7.5
  const off = [...sums.values()].flatMap(([r, g, b, count]) => [r, g, b].map((all) => Math.abs(all / count - 7.5)));
  return { worst: Math.max(...off), usual: off.reduce((all, one) => all + one) / off.length, wrong };
};
</script>`;

/** Runs a program of ours that ends with the test, until it says something on standard error. */
async function run(t, program, ...args) {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => child.once('close', resolve));
  t.after(() => {
    child.kill();
    return ended;
  });
  const lines = createInterface({ input: child.stderr });
  await new Promise((resolve, reject) => {
    lines.on('line', (line) => /waiting|listening/.test(line) && resolve());
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`${program} ended with ${code}`)));
  });
}

async function watch(t, h264) {
  const folder = await scratch(t);
  const [port, display] = [await freePort(), `unix:${path.join(folder, 'display')}`];
  await run(t, MACHINE, display, '800x640');
  await run(t, path.join(BINARIES, 'yunju-vnc-proxy'), '--display', display, '--websocket', `tcp:127.0.0.1:${port}`, '--no-jail');
  const web = createServer(({ url }, response) => {
    if (!url.startsWith('/assets/')) return response.setHeader('content-type', 'text/html').end(page(port, h264));
    response.setHeader('content-type', 'text/javascript');
    const [folder_, rest] = url.startsWith('/assets/novnc/') ? [NOVNC, url.slice('/assets/novnc'.length)] : [PAGES, url.slice('/assets'.length)];
    return createReadStream(path.join(folder_, path.normalize(rest))).on('error', () => response.writeHead(404).end()).pipe(response);
  });
  await new Promise((resolve) => web.listen(0, '127.0.0.1', resolve));
  t.after(() => web.closeAllConnections() ?? web.close());
  const tab = await (await launch(t)).newPage();
  await tab.goto(`http://127.0.0.1:${web.address().port}/`);
  await until('the page to connect', async () => (await tab.title()) === 'connected', 60_000);
  await until('the picture', () => tab.evaluate(() => document.querySelector('canvas').width === 800 && link.counts.updates > 0), 60_000);
  return tab;
}

const key = (tab) => tab.evaluate(() => rfb.sendKey(0x76, 'KeyV'));
const pixels = (tab, codec) => tab.evaluate((name) => link.counts.codecs.get(name)?.pixels ?? 0, codec);

for (const h264 of [true, false]) {
  test(`a video is seen as it is ${h264 ? 'where the browser decodes H.264' : 'without H.264'}`, { timeout: 300_000 }, async (t) => {
    const tab = await watch(t, h264);
    const supported = await tab.evaluate(() => window.supported);
    if (!h264) assert.equal(supported, false);
    const codec = supported ? 'h264' : 'jpeg';
    await key(tab);
    await until(`twenty pictures of the video as ${codec}`, async () => (await pixels(tab, codec)) > 20 * 480 * 270, 60_000);
    let playing;
    await until('the video in its colours', async () => {
      playing = await tab.evaluate(() => compare());
      return playing.worst < 20 && playing.usual < 4;
    }, 60_000);
    await key(tab);
    await until('the exact last picture', async () => (await tab.evaluate(() => compare())).wrong === 0, 60_000);
    assert.equal((await pixels(tab, 'h264')) > 0, supported, 'H.264 comes to those who ask for it only');
    assert.equal(await tab.title(), 'connected');
    t.diagnostic(`H.264 in this browser: ${supported}; while it played colours were ${playing.usual.toFixed(1)} off, at worst ${playing.worst.toFixed(1)}`);
  });
}
