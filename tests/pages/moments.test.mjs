// Desktops in time with the card guest: what a person sees goes on, comes back, and is there twice.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person, launch, until } from '../lib/browser.mjs';
import { read } from '../lib/card.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';

async function desktop(t, options = []) {
  const service = await Service.start(t, ['--stop-machines', ...options]);
  const oneTime = (await service.yunju('user', 'add', 'me', '--admin')).trim();
  await service.yunju('create', 'card', '--image', 'card', '--owner', 'me', '--start');
  const person = await Person.arrive(await launch(t), service.url);
  await person.logInFirst('me', oneTime, PASSWORD);
  return { service, person };
}

const sees = (person, what, condition) =>
  until(what, async () => {
    const card = await read(person);
    return condition(card) && card;
  });

const look = (person, name) => person.visit(name).then(() => person.connected());

test('a desktop that was suspended shows the same picture and takes the next key', async (t) => {
  const { service, person } = await desktop(t);
  await person.open('card');
  await person.scaled();
  await person.move(300, 600);
  await person.type('abc');
  await sees(person, 'the keys', (card) => card.presses === 3 && !card.down);
  const before = await person.rectangle(0, 0, 1000, 340);
  await person.choose('power', 'power-suspend');
  await person.state('suspended');
  await person.keep('asleep');
  assert.equal(JSON.parse(await service.yunju('show', 'card', '-o', 'json')).state, 'suspended');
  await person.part('veil-start').click();
  await person.connected();
  await sees(person, 'the same machine', (card) => card.presses === 3 && card.starts === 1);
  assert.ok(before.equals(await person.rectangle(0, 0, 1000, 340)), 'the same picture');
  await person.type('d');
  await sees(person, 'the next key', (card) => card.presses === 4);
  assert.deepEqual(person.errors, []);
});

test('opening the page of a desktop that fell asleep wakes it', async (t) => {
  const { service, person } = await desktop(t, ['--suspend-after', '2s']);
  await person.open('card');
  await person.type('ab');
  await sees(person, 'the keys', (card) => card.presses === 2);
  await person.page.goto(person.url);
  const card = person.card('card');
  await until('it sleeps', async () => (await card.getAttribute('data-state')) === 'suspended', 30_000);
  await until('its last picture', () =>
    card.getByTestId('desktop-picture').evaluate((image) => !image.hidden && image.complete && image.naturalWidth > 0));
  await person.keep('desktops-asleep');
  await person.open('card');
  await sees(person, 'where it was', (seen) => seen.presses === 2 && seen.starts === 1);
  assert.equal(JSON.parse(await service.yunju('show', 'card', '-o', 'json')).state, 'running');
});

test('a fork goes on from the same moment, and what is undone can be undone', async (t) => {
  const { person } = await desktop(t);
  await person.open('card');
  await person.type('ab');
  await sees(person, 'two keys', (card) => card.presses === 2 && !card.down);

  await person.page.goto(person.url);
  await person.card('card').getByTestId('desktop-more').click();
  await person.card('card').getByTestId('desktop-snapshots').click();
  await person.part('snapshot-name').fill('two keys');
  await person.part('snapshot-create').click();
  await person.part('snapshot').waitFor();
  await person.keep('snapshots');
  await person.part('snapshots-close').click();
  await person.card('card').getByTestId('desktop-more').click();
  await person.card('card').getByTestId('desktop-fork').click();
  await person.part('fork-name').fill('twin');
  await person.part('fork-submit').click();
  await person.open('twin');
  await sees(person, 'the same two keys', (card) => card.presses === 2 && card.starts === 1);
  await person.type('cde');
  await sees(person, 'three more', (card) => card.presses === 5);

  await look(person, 'card');
  await sees(person, 'still two keys', (card) => card.presses === 2);
  await person.type('c');
  await sees(person, 'a third key', (card) => card.presses === 3 && !card.down);
  for (const presses of [2, 3]) {
    await person.page.goto(person.url);
    const card = person.card('card');
    if (presses === 2) {
      await card.getByTestId('desktop-more').click();
      await card.getByTestId('desktop-snapshots').click();
      await person.part('snapshot').getByTestId('snapshot-restore').click();
    } else {
      await until('a restore point', async () => {
        await card.getByTestId('desktop-more').click();
        if (await card.getByTestId('desktop-undo').isVisible()) return true;
        await card.getByTestId('desktop-more').click();
        return false;
      });
      await card.getByTestId('desktop-undo').click();
    }
    const done = person.page.waitForResponse((response) => response.request().method() === 'POST' && /\/(restore|undo)$/.test(new URL(response.url()).pathname));
    await person.part('confirm-ok').click();
    await done;
    await person.part('snapshots-dialog').waitFor({ state: 'hidden' });
    await until('it runs', async () => (await card.getAttribute('data-state')) === 'running', 30_000);
    await look(person, 'card');
    await sees(person, `${presses} keys`, (seen) => seen.presses === presses);
  }
  assert.deepEqual(person.errors, []);
});
