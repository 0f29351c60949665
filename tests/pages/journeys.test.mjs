// What a new user and an admin do in the portal, from beginning to end.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import jsQR from 'jsqr';
import { PNG } from 'pngjs';
import { accessible } from '../lib/access.mjs';
import { code } from '../lib/authenticator.mjs';
import { Person, launch, until } from '../lib/browser.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';

/** What a phone's camera reads from the picture on the screen. */
async function scanned(person) {
  const picture = person.part('factor-qr');
  await until('the picture', () => picture.evaluate(({ complete, naturalWidth }) => complete && naturalWidth > 0));
  const { data, width, height } = PNG.sync.read(await picture.screenshot());
  return jsQR(new Uint8ClampedArray(data), width, height)?.data;
}

test('a new user comes by an invitation, makes a first desktop within the quota, and sees to the account', async (t) => {
  const service = await Service.start(t, ['--stop-machines']);
  const { url } = JSON.parse(await service.yunju('user', 'invite', 'ann', '-o', 'json'));
  await service.yunju('user', 'quota', 'ann', '--desktops', '1', '--memory', '1G', '--cpus', '2');
  const person = await Person.arrive(await launch(t), url);
  await person.part('password-new').fill(PASSWORD);
  await person.part('password-again').fill(PASSWORD);
  await person.part('password-submit').click();
  await person.part('login-form').waitFor();
  await person.logIn('ann', PASSWORD);

  await person.part('desktops-empty').waitFor();
  assert.equal(await person.part('nav-admin').count(), 0);
  await person.part('create-first').click();
  await person.part('create-name').fill('study');
  await person.part('create-image-card').check();
  await person.part('create-memory').selectOption({ label: '512 MiB' });
  assert.equal(await person.part('create-memory').locator('option', { hasText: '2 GiB' }).count(), 0);
  await accessible(person, 'making a desktop');
  await person.keep('portal-create');
  await person.part('create-submit').click();
  const card = person.card('study');
  await until('running', async () => (await card.getAttribute('data-state')) === 'running');
  await card.getByTestId('desktop-picture').waitFor();
  const bytes = await person.page.evaluate(async () => {
    const [{ id }] = await (await fetch('/v1/desktops')).json();
    const answer = await fetch(`/v1/desktops/${id}/thumbnail`);
    const tag = answer.headers.get('etag');
    const again = await fetch(`/v1/desktops/${id}/thumbnail`, { headers: { 'if-none-match': tag }, cache: 'no-store' });
    return { size: (await answer.blob()).size, type: answer.headers.get('content-type'), again: again.status, tag };
  });
  assert.equal(bytes.type, 'image/jpeg');
  assert.ok(bytes.size > 500 && bytes.size <= 30 * 1024, `${bytes.size} bytes`);
  assert.ok([200, 304].includes(bytes.again) && bytes.tag);
  assert.match(await card.getByTestId('desktop-facts').innerText(), /512 MiB/);

  await person.part('quota-reached').waitFor();
  assert.ok(await person.part('desktop-create').isDisabled());
  await person.keep('portal-quota-reached');

  // it is called otherwise, and sleeps
  await card.getByTestId('desktop-more').click();
  await card.getByTestId('desktop-rename').click();
  await person.part('rename-name').fill('library');
  await person.part('rename-submit').click();
  await person.card('library').waitFor();
  await person.card('library').getByTestId('desktop-suspend').click();
  await until('asleep', async () => (await person.card('library').getAttribute('data-state')) === 'suspended');

  // the account
  await person.accountMenu();
  await person.part('menu-account').click();
  await person.part('factor-begin').click();
  await person.part('factor-password').fill(PASSWORD);
  await person.part('factor-submit').click();
  const [, key] = /secret=([A-Z2-7]+)/.exec(await scanned(person)) ?? [];
  assert.ok(key, 'the QR code has the key');
  await accessible(person, 'the QR code');
  await person.keep('portal-qr');
  await person.part('factor-code').fill(code(key));
  await person.part('factor-key-submit').click();
  await person.part('recovery-codes').waitFor();
  const codes = await person.part('recovery-codes').locator('code').allInnerTexts();
  assert.equal(codes.length, 10);
  await person.keep('portal-recovery');
  await person.part('recovery-cancel').click();
  assert.equal(await person.part('factor-state').getAttribute('data-state'), 'running');

  await person.part('token-new').click();
  await person.part('token-name').fill('laptop');
  await person.part('token-submit').click();
  const token = await person.part('token-secret').inputValue();
  const answer = await fetch(`${service.url}/v1/desktops`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal((await answer.json())[0].name, 'library');
  await person.part('token-made-cancel').click();

  // a session elsewhere is seen, and ended
  const elsewhere = await Person.arrive(await launch(t), service.url, { locale: 'zh-CN' });
  await elsewhere.logIn('ann', PASSWORD);
  await elsewhere.part('login-code').fill(codes[0]);
  await elsewhere.part('login-submit').click();
  await elsewhere.card('library').waitFor();
  await person.page.reload();
  await person.part('session-end').click();
  await elsewhere.part('signed-out-dialog').waitFor();
  await elsewhere.keep('portal-signed-out-zh');
  await elsewhere.part('signed-out-submit').click();
  await elsewhere.part('login-form').waitFor();

  await person.part('change-password').click();
  await person.part('password-current').fill(PASSWORD);
  await person.part('password-new').fill(`${PASSWORD}, new`);
  await person.part('password-again').fill(`${PASSWORD}, new`);
  await person.part('password-submit').click();
  await person.part('notice-good').waitFor();
  await person.keep('portal-account');
  await person.logOut();
  assert.deepEqual(person.errors, []);
});

test('an admin invites, gives roles and quotas, disables, sees all desktops, and reads who did what', async (t) => {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'root', '--admin')).trim();
  await service.yunju('user', 'add', 'ben');
  await service.yunju('create', 'bens', '--image', 'card', '--owner', 'ben');
  const browser = await launch(t);
  const person = await Person.arrive(browser, service.url);
  await person.logInFirst('root', oneTime, PASSWORD);
  await person.part('desktops-empty').waitFor(); // of one's own there is none
  await person.part('nav-admin').click();
  const row = (name) => person.page.locator(`tr[data-name="${name}"]`);
  const choose = async (name, what) => {
    await row(name).getByTestId('user-more').click();
    await row(name).getByTestId(what).click();
  };

  await person.part('user-invite').click();
  await person.part('invite-name').fill('cleo');
  await person.part('invite-role').selectOption('auditor');
  await person.part('invite-submit').click();
  const link = await person.part('link-url').inputValue();
  assert.match(link, /\/login#link=/);
  await accessible(person, 'a link');
  await person.part('link-cancel').click();
  await row('cleo').waitFor();

  await choose('ben', 'user-quota');
  await person.part('quota-desktops').fill('3');
  await person.part('quota-memory').fill('2');
  await accessible(person, 'a quota');
  await person.keep('portal-admin-quota');
  await person.part('quota-submit').click();
  await until('the quota', async () => /1 of 3/.test(await row('ben').innerText()));
  await choose('ben', 'user-role');
  await person.part('role-choice').selectOption('developer');
  await person.part('role-submit').click();
  await until('the role', async () => /developer/.test(await row('ben').innerText()));
  await choose('ben', 'user-disable');
  await person.part('confirm-ok').click();
  await until('ben disabled', async () => /disabled/.test(await row('ben').innerText()));
  await person.keep('portal-admin-users');
  await choose('ben', 'user-delete');
  await person.part('notice').waitFor(); // they own a desktop
  await person.part('user-search').fill('cle');
  await row('ben').waitFor({ state: 'detached' });
  await row('cleo').waitFor();

  await person.page.getByRole('link', { name: 'Groups' }).click();
  await person.part('group-new').click();
  await person.part('group-name').fill('lab');
  await person.part('group-role').selectOption('developer');
  await person.part('group-submit').click();
  await person.part('group-join').click();
  await person.part('join-user').fill('cleo');
  await person.part('join-submit').click();
  await person.part('group-leave').waitFor();
  await person.keep('portal-admin-groups');

  await person.page.getByRole('link', { name: 'All desktops' }).click();
  await row('bens').getByTestId('admin-desktop-more').click();
  await row('bens').getByTestId('admin-start').click();
  await until('it runs', async () => (await row('bens').getAttribute('data-state')) === 'running');
  await person.keep('portal-admin-desktops');
  await row('bens').getByTestId('admin-desktop-more').click();
  await row('bens').getByTestId('admin-delete').click();
  await person.part('confirm-ok').click();
  await row('bens').waitFor({ state: 'detached' });

  await person.page.getByRole('link', { name: 'Audit log' }).click();
  await person.part('audit-action').fill('user.');
  await until('only users', async () => {
    const actions = await person.part('audit-rows').locator('code').allInnerTexts();
    return actions.length >= 4 && actions.every((action) => action.startsWith('user.'));
  });
  await person.keep('portal-admin-audit');
  const download = person.page.waitForEvent('download');
  await person.part('audit-export-csv').click();
  const text = await readFile(await (await download).path(), 'utf8');
  assert.match(text, /user\.invite/);
  assert.doesNotMatch(text, /desktop\.add/);

  // an auditor sees all that, and no button to change it
  const auditor = await Person.arrive(browser, link);
  await auditor.part('password-new').fill(PASSWORD);
  await auditor.part('password-again').fill(PASSWORD);
  await auditor.part('password-submit').click();
  await auditor.part('login-form').waitFor();
  await service.yunju('group', 'rm-member', 'lab', 'cleo').catch(() => service.yunju('group', 'rm', 'lab'));
  await auditor.logIn('cleo', PASSWORD);
  await auditor.part('users-rows').waitFor();
  assert.equal(await auditor.part('user-invite').count(), 0);
  assert.equal(await auditor.part('user-more').count(), 0);
  assert.equal(await auditor.part('nav-desktops').count(), 0);
  assert.deepEqual([person.errors, auditor.errors], [[], []]);
});
