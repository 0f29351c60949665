// The portal as a person uses it: logging in, making a desktop, starting, stopping and deleting it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { code } from '../lib/authenticator.mjs';
import { Person, launch, until } from '../lib/browser.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';

test('a wrong password is refused in words, and a one-time password works once', async (t) => {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'ann')).trim();
  const browser = await launch(t);
  const person = await Person.arrive(browser, service.url);
  await person.logIn('ann', 'not the password');
  await person.part('login-error').waitFor();
  assert.match(await person.part('login-error').innerText(), /\w+ \w+/);
  await person.keep('login-refused');
  await person.logInFirst('ann', oneTime, PASSWORD);
  await person.part('desktops-empty').waitFor();
  await person.logOut();
  await person.logIn('ann', oneTime);
  await person.part('login-error').waitFor();
  await person.logIn('ann', PASSWORD);
  await person.part('desktops-empty').waitFor();
  await person.keep('no-desktops');
  assert.deepEqual(person.errors, []);
});

test('an invited person chooses a password by the link, once, and shows a second factor when there is one', async (t) => {
  const service = await Service.start(t, ['--stop-machines']);
  const { url } = JSON.parse(await service.yunju('user', 'invite', 'ann', '-o', 'json'));
  const person = await Person.arrive(await launch(t), url);
  const choose = async () => {
    await person.part('password-new').fill(PASSWORD);
    await person.part('password-again').fill(PASSWORD);
    await person.part('password-submit').click();
  };
  await person.keep('invited');
  await choose();
  await person.part('login-form').waitFor();
  assert.equal(person.page.url(), `${service.url}/login`);
  await person.logIn('ann', PASSWORD);
  await person.part('desktops-empty').waitFor();

  const key = await person.page.evaluate(async (password) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch('/v1/session/factor', { method: 'POST', headers, body: JSON.stringify({ password }) });
    return (await answer.json()).key;
  }, PASSWORD);
  const codes = await person.page.evaluate(async (code) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch('/v1/session/factor/confirm', { method: 'POST', headers, body: JSON.stringify({ code }) });
    return (await answer.json()).codes;
  }, code(key));
  await person.logOut();
  await person.logIn('ann', PASSWORD);
  await person.part('login-code').fill('000000');
  await person.part('login-submit').click();
  await until('a refusal', async () => (await person.part('login-error').innerText()) !== '');
  await person.keep('second-factor');
  await person.part('login-code').fill(codes[0]);
  await person.part('login-submit').click();
  await person.part('desktops-empty').waitFor();

  await person.logOut();
  await person.page.goto('about:blank');
  await person.page.goto(url);
  await choose();
  await until('a refusal', async () => (await person.part('password-error').innerText()) !== '');
});

test('a person makes a desktop, which starts, sees it in the list, stops and deletes it', async (t) => {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'ann', '--admin')).trim();
  const person = await Person.arrive(await launch(t), service.url);
  await person.logInFirst('ann', oneTime, PASSWORD);
  await person.part('desktop-create').click();
  await person.part('create-name').fill('study');
  await person.part('create-image-card').check();
  await person.keep('create');
  await person.part('create-submit').click();
  const card = person.card('study');
  await card.waitFor();
  await until('running', async () => (await card.getAttribute('data-state')) === 'running');
  await until('a picture of it', () =>
    card.getByTestId('desktop-picture').evaluate((element) => {
      const image = element.matches('img') ? element : element.querySelector('img');
      return image?.complete && image.naturalWidth > 0;
    }));
  await card.getByTestId('desktop-stop').click();
  await until('stopped', async () => (await card.getAttribute('data-state')) === 'stopped', 40_000);
  await card.getByTestId('desktop-more').click();
  await card.getByTestId('desktop-delete').click();
  await person.part('confirm-ok').click();
  await card.waitFor({ state: 'detached' });
  assert.equal((await service.yunju('ls', '-o', 'json')).trim(), '[]');

  // for a while it can be taken back
  await person.part('trash').click();
  await person.keep('trash');
  await person.part('trash-recover').click();
  await card.waitFor();
  await until('stopped again', async () => (await card.getAttribute('data-state')) === 'stopped');
  await card.getByTestId('desktop-more').click();
  await card.getByTestId('desktop-delete').click();
  await person.part('confirm-ok').click();
  await person.part('trash-remove').click();
  await person.part('confirm-ok').click();
  await person.part('trashed').waitFor({ state: 'detached' });
  assert.deepEqual(person.errors, []);
});

test('one person neither sees nor opens the desktop of another', async (t) => {
  const service = await Service.start(t, ['--stop-machines']);
  const oneTime = (await service.yunju('user', 'add', 'ann')).trim();
  await service.yunju('user', 'add', 'ben');
  await service.yunju('create', 'bens', '--image', 'card', '--owner', 'ben');
  const person = await Person.arrive(await launch(t), service.url);
  await person.logInFirst('ann', oneTime, PASSWORD);
  await person.part('desktops-empty').waitFor();
  await person.page.goto(`${service.url}/desktops/bens`);
  await person.part('frame-title').getByText('No such desktop').waitFor();
  await person.keep('missing');
});
