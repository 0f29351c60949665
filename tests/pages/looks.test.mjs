// How the portal looks and how heavy it is: every page in both languages, light and dark, on a phone; with few and with many
// desktops; and while the service is away.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accessible } from '../lib/access.mjs';
import { Person, launch, until } from '../lib/browser.mjs';
import { firstLoad } from '../lib/load.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';
const PAGES = ['/', '/account', '/admin/users', '/admin/groups', '/admin/desktops', '/admin/images', '/admin/usage', '/admin/audit', '/admin/health'];
const LOOKS = {
  desktop: {},
  dark: { colorScheme: 'dark' },
  'phone-zh': { locale: 'zh-CN', width: 390, height: 844, hasTouch: true, deviceScaleFactor: 2 },
  'phone-dark-zh': { locale: 'zh-CN', colorScheme: 'dark', width: 390, height: 844, hasTouch: true },
};

/** A service with an admin, who has chosen a password, some users and desktops. */
async function populated(t) {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'me', '--admin')).trim();
  for (const name of ['ann', 'ben']) await service.yunju('user', 'add', name);
  await service.yunju('user', 'quota', 'me', '--desktops', '5', '--memory', '8G', '--cpus', '8');
  await service.yunju('group', 'add', 'lab', '--role', 'developer');
  await service.yunju('create', 'work', '--image', 'card', '--owner', 'me', '--start');
  await service.yunju('create', 'idle', '--image', 'card', '--owner', 'me');
  await service.yunju('create', 'anns', '--image', 'card', '--owner', 'ann');
  return { service, oneTime };
}

/** A page of the portal is there, and nothing of it is wider than the window. */
async function settled(person) {
  await person.page.locator('main h1').waitFor();
  await person.part('loading').waitFor({ state: 'detached' });
  const over = await person.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(over <= 0, `${person.page.url()} is ${over} pixels too wide`);
}

test('every page reads well in both languages, light and dark, on a phone, and without eyes', async (t) => {
  const { service, oneTime } = await populated(t);
  const browser = await launch(t);
  let first = true;
  for (const [look, options] of Object.entries(LOOKS)) {
    const person = await Person.arrive(browser, service.url, options);
    await person.part('login-form').waitFor();
    await accessible(person, `login ${look}`);
    await person.keep(`looks-login-${look}`);
    if (first) await person.logInFirst('me', oneTime, PASSWORD);
    else {
      await person.logIn('me', PASSWORD);
      await person.part('user-name').waitFor();
    }
    first = false;
    for (const page of PAGES) {
      await person.page.goto(service.url + page);
      await settled(person);
      if (page === '/') await person.card('work').getByTestId('desktop-picture').waitFor();
      await accessible(person, `${page} ${look}`);
      await person.keep(`looks-${page.slice(1).replace('/', '-') || 'desktops'}-${look}`);
      if (/zh/.test(look)) assert.match(await person.page.locator('main h1').innerText(), /\p{Script=Han}/u);
    }
    await person.accountMenu();
    await accessible(person, `menu ${look}`);
    await person.keep(`looks-menu-${look}`);
    assert.deepEqual(person.errors, []);
    await person.page.context().close();
  }
});

test('how the portal looks can be chosen, and stays chosen', async (t) => {
  const { service, oneTime } = await populated(t);
  const person = await Person.arrive(await launch(t), service.url);
  await person.logInFirst('me', oneTime, PASSWORD);
  const ground = () => person.page.evaluate(() => getComputedStyle(document.body).color);
  const light = await ground();
  await person.accountMenu();
  await person.part('theme-dark').click();
  await until('another colour', async () => (await ground()) !== light);
  await person.page.reload();
  await person.card('work').waitFor();
  assert.notEqual(await ground(), light);
  await person.accountMenu();
  await person.part('language-zh').click();
  await until('Chinese', async () => (await person.part('desktop-create').innerText()) === '新建桌面');
  await person.visit('idle');
  await person.state('stopped');
  assert.notEqual(await ground(), light);
});

test('all that is done with a mouse is done with keys too', async (t) => {
  const { service, oneTime } = await populated(t);
  const person = await Person.arrive(await launch(t), service.url);
  await person.logInFirst('me', oneTime, PASSWORD);
  await person.card('idle').waitFor();
  const focused = (attribute) => person.page.evaluate((name) => document.activeElement?.getAttribute(name), attribute);
  const press = async (key, times = 1) => {
    for (let n = 0; n < times; n += 1) await person.page.keyboard.press(key);
  };
  const reach = async (name) => until(name, async () => (await press('Tab'), (await focused('data-testid')) === name));
  await person.page.locator('body').focus();
  await press('Tab');
  assert.equal(await focused('href'), '#main');
  await reach('desktop-more');
  await press('Enter');
  await press('ArrowDown', 3);
  assert.equal(await focused('data-testid'), 'desktop-rename');
  await press('Enter');
  await person.part('rename-dialog').waitFor();
  assert.equal(await focused('data-testid'), 'rename-name');
  await press('Escape');
  await person.part('rename-dialog').waitFor({ state: 'detached' });
  assert.equal(await focused('data-testid'), 'desktop-more');
  await press('Enter');
  await press('Escape');
  assert.equal(await focused('data-testid'), 'desktop-more');
});

test('the first load has at most 200 KiB', async (t) => {
  const { service, oneTime } = await populated(t);
  const browser = await launch(t);
  const before = await Person.arrive(browser, service.url);
  await before.logInFirst('me', oneTime, PASSWORD);
  const cookies = await before.page.context().cookies();
  const { bytes, requests, heaviest } = await firstLoad(browser, service.url, cookies, 'work', { locale: 'zh-CN' });
  t.diagnostic(`${(bytes / 1024).toFixed(1)} KiB in ${requests} requests`);
  assert.ok(requests > 10, 'the requests are counted');
  assert.ok(bytes <= 200 * 1024, JSON.stringify(heaviest.slice(0, 8)));
});

test('a service that goes away is missed in words, and the page goes on when it is back', async (t) => {
  const { service, oneTime } = await populated(t);
  const person = await Person.arrive(await launch(t), service.url);
  await person.logInFirst('me', oneTime, PASSWORD);
  await person.card('idle').waitFor();
  await service.end();
  await person.part('offline').waitFor();
  await person.keep('portal-offline');
  await person.card('idle').getByTestId('desktop-start').click();
  await person.part('notice').waitFor();
  await person.part('nav-account').evaluate((link) => link.click());
  await person.part('screen-failed').waitFor();
  await service.serve();
  await person.part('section-password').waitFor();
  await person.part('offline').waitFor({ state: 'hidden' });
  await service.yunju('create', 'fresh', '--image', 'card', '--owner', 'me');
  await person.part('nav-desktops').click();
  await person.card('fresh').waitFor();
  await service.yunju('rm', 'fresh', '--yes').catch(() => service.yunju('rm', 'fresh'));
  await person.card('fresh').waitFor({ state: 'detached' });
});

test('with 200 users and 1,000 desktops one finds what one looks for', async (t) => {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'me', '--admin')).trim();
  const number = (n, digits = 3) => String(n).padStart(digits, '0');
  const all = async (count, work) => {
    const todo = Array.from({ length: count }, (_, n) => n);
    await Promise.all(Array.from({ length: 8 }, async () => {
      while (todo.length) await work(todo.pop());
    }));
  };
  await all(199, (n) => service.ask('POST', '/v1/invitations', { name: `user-${number(n)}`, role: 'user' }));
  // of one's own there are a hundred
  await all(1000, (n) => service.ask('POST', '/v1/desktops', { name: `desk-${number(n, 4)}`, image: 'card', owner: n % 10 === 0 ? 'me' : `user-${number(n % 199)}` }));

  const person = await Person.arrive(await launch(t), service.url);
  await person.logInFirst('me', oneTime, PASSWORD);
  await person.card('desk-0000').waitFor();
  const cards = person.part('desktop-card');
  assert.equal(await cards.count(), 60);
  await person.part('desktops-next').click();
  await until('all of them', async () => (await cards.count()) === 100);
  assert.ok(await person.part('desktops-next').isHidden());
  await person.part('desktop-search').fill('desk-099');
  await until('one', async () => (await cards.count()) === 1);
  await person.card('desk-0990').waitFor();
  await person.part('desktop-search').fill('nothing like that');
  await person.part('desktops-none').waitFor();
  await person.keep('portal-nothing-found');

  await person.page.goto(`${service.url}/admin/desktops`);
  const rows = person.part('desktops-rows').locator('tr');
  await until('a page', async () => (await rows.count()) === 50);
  await person.part('desktops-next').click();
  await until('two pages', async () => (await rows.count()) === 100);
  await person.part('admin-desktop-search').fill('user-123');
  await until('those of one user', async () => (await rows.count()) > 0 && (await rows.allInnerTexts()).every((text) => /user-123/.test(text)));
  await person.keep('portal-admin-many');

  await person.page.goto(`${service.url}/admin/users`);
  const users = person.part('users-rows').locator('tr');
  await until('a page', async () => (await users.count()) === 50);
  await person.part('user-search').fill('user-19');
  await until('some users', async () => (await users.count()) === 9);
  assert.deepEqual(person.errors, []);
});
