// Desktops apart: each on a host name of its own, in a frame of the portal that it cannot reach out of; and shared with others.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person, launch, until } from '../lib/browser.mjs';
import { read } from '../lib/card.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';

/** A running card of a user, who is logged in. */
async function desk(t) {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'ann')).trim();
  await service.yunju('create', 'card', '--image', 'card', '--owner', 'ann', '--start');
  const browser = await launch(t);
  const person = await Person.arrive(browser, service.url);
  await person.logInFirst('ann', oneTime, PASSWORD);
  return { service, browser, person };
}

const sees = (person, what, condition) =>
  until(what, async () => {
    const card = await read(person);
    return condition(card) && card;
  });

test('a desktop in the portal works, and reaches nothing around it', async (t) => {
  const { service, person } = await desk(t);
  const { page } = person;
  await page.evaluate(() => localStorage.setItem('secret', 'of the portal'));
  await person.openFramed('card');
  await person.scaled();
  await person.move(300, 600);
  await person.type('abc');
  await sees(person, 'the keys', (card) => card.presses === 3);
  await person.keep('framed');

  const portal = new URL(service.url);
  const url = new URL(person.frame.url());
  assert.match(url.host, new RegExp(`^[a-z2-7]{32}\\.desk\\.localhost:${portal.port}$`));
  assert.equal(url.hash, '', 'the ticket does not stay in the address');
  const tries = await person.frame.evaluate(async (service) => {
    const attempt = async (work) => {
      try {
        return await work();
      } catch (error) {
        return error.name;
      }
    };
    return {
      parent: await attempt(() => parent.document.title),
      storage: await attempt(() => parent.localStorage.secret),
      own: await attempt(() => localStorage.getItem('secret')),
      cookie: document.cookie,
      top: await attempt(() => {
        top.location = 'about:blank';
      }),
      opener: opener === null,
      popup: await attempt(() => window.open(`${service}/`) === null),
      api: await attempt(async () => (await fetch(`${service}/v1/session`, { credentials: 'include' })).status),
      worker: await attempt(async () => (await navigator.serviceWorker.register(`${service}/assets/door.js`)).scope),
      elsewhere: await Promise.all(['/', '/login', '/v1/desktops', '/v1/session', '/v1/openapi.json'].map(async (path) => (await fetch(path)).status)),
      camera: document.featurePolicy.allowsFeature('camera'),
      lent: ['fullscreen', 'microphone', 'clipboard-read', 'gamepad'].map((name) => document.featurePolicy.allowsFeature(name)),
    };
  }, service.url);
  assert.deepEqual(tries, {
    parent: 'SecurityError', storage: 'SecurityError', own: tries.own, cookie: '', top: 'SecurityError', opener: true, popup: true,
    api: 'TypeError', worker: tries.worker, elsewhere: [404, 404, 404, 404, 404], camera: false, lent: [true, true, true, true],
  });
  assert.match(tries.worker, /Error$/);
  assert.ok(tries.own === null || tries.own === 'SecurityError');
  assert.equal(new URL(page.url()).pathname, '/desktops/card', 'the portal stays where it is');

  // the portal does not believe what others say in the desktop's place
  await page.evaluate(() => window.postMessage({ type: 'home' }, '*'));
  // settings follow from desktop to desktop, and the way home leads out of the frame
  await person.choose('display', 'setting-pinned');
  await until('the setting in the portal', () => page.evaluate(() => /"pinned":true/.test(localStorage.getItem('yunju.settings'))));
  await person.leaveToolbar();
  await page.reload();
  await page.getByTestId('frame').waitFor();
  person.frame = await (await page.getByTestId('frame').elementHandle()).contentFrame();
  await person.connected();
  assert.equal(new URL(person.frame.url()).host, url.host, 'the same host name while the login lasts');
  assert.ok(await person.frame.evaluate(async () => (await import('/assets/settings.js')).settings.pinned));
  await person.part('toolbar-home').click();
  await page.getByTestId('desktop-card').first().waitFor();
  assert.deepEqual(person.errors.filter((error) => !/localhost:\d+\/(v1\/session|assets\/door.js)/.test(error)), []);
});

test('a link lets somebody without an account look, the owner sees it, and taking it back ends it', async (t) => {
  const { browser, service, person } = await desk(t);
  await person.open('card');
  await person.scaled();
  await person.tool('share');
  await person.part('share-make').click();
  await person.part('share-link').waitFor();
  const link = await person.part('share-link').inputValue();
  assert.match(link, new RegExp(`^${service.url}/shared#[0-9a-f]{64}$`));
  await person.keep('share');

  const guest = await Person.arrive(browser, link);
  await guest.connected();
  await person.part('watched').getByText('guest').waitFor();
  await person.part('share-watcher').filter({ hasText: 'guest' }).waitFor();
  await person.keep('watched');
  await guest.keep('guest');
  assert.equal(await guest.part('view-only').getAttribute('hidden'), null);
  await guest.tool('display');
  for (const tool of ['power', 'share', 'clipboard']) assert.equal(await guest.part(`toolbar-${tool}`).isVisible(), false, tool);
  assert.equal(await guest.part('setting-view-only').count(), 0);
  await guest.leaveToolbar();
  // even a page that sends what it may not changes nothing
  await guest.page.evaluate(async () => {
    const { session } = await import('/assets/session.js');
    session.rfb.viewOnly = false;
    session.rfb.sendKey(0x61, 'KeyA', true);
    session.rfb.sendKey(0x61, 'KeyA', false);
  });
  await person.leaveToolbar();
  await person.move(300, 600);
  await person.type('b');
  assert.equal((await sees(person, 'the owner\'s key', (card) => card.presses > 0)).presses, 1);
  const elsewhere = await guest.page.evaluate(() =>
    Promise.all(['/start', '/shares', '/viewers'].map(async (rest) => (await fetch(`/v1${location.pathname}${rest}`, { method: rest === '/start' ? 'POST' : 'GET' })).status)));
  assert.deepEqual(elsewhere, [403, 403, 403]);
  assert.equal(await guest.page.evaluate((url) => fetch(`${url}/v1/desktops`).then(() => 'reached', () => 'not reached'), service.url), 'not reached');

  await person.tool('share');
  await person.part('share-end').click();
  await guest.part('door').waitFor();
  await person.part('watched').waitFor({ state: 'hidden' });
  await guest.page.goto(link);
  await guest.part('shared-title').getByText('This link leads nowhere').waitFor();
  assert.deepEqual(person.errors, []);
});
