// The whole pipeline with the card guest: machine, display socket, RFB, websocket, edge, noVNC, and back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person, launch, until } from '../lib/browser.mjs';
import { patchAfter, read } from '../lib/card.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';

async function desktop(t, options) {
  const service = await Service.start(t, ['--stop-machines', ...(options ?? [])]);
  const oneTime = (await service.yunju('user', 'add', 'me', '--admin')).trim();
  await service.yunju('create', 'card', '--image', 'card', '--owner', 'me');
  const browser = await launch(t);
  const person = await Person.arrive(browser, service.url);
  await person.logInFirst('me', oneTime, PASSWORD);
  return { service, browser, person };
}

const sees = (person, what, condition) =>
  until(what, async () => {
    const card = await read(person);
    return condition(card) && card;
  });

test('a person starts the card, sees it, moves, clicks, turns the wheel, types, and reads the reply from pixels', async (t) => {
  const { person } = await desktop(t);
  await person.card('card').getByTestId('desktop-start').click();
  await person.page.locator('[data-name="card"][data-state="running"]').waitFor();
  await person.keep('desktops-page');
  await person.open('card');

  const { width } = await person.size();
  await until('the bars', async () => String(await person.pixels([[10, 60], [width - 10, 60]])) === '255,255,255,0,0,0');
  const first = await sees(person, 'the first start', (card) => card.starts === 1);
  assert.equal(first.patch, patchAfter(0));

  await person.move(700, 500);
  await sees(person, 'the pointer', (card) => card.x === 700 && card.y === 500);
  await person.page.mouse.down();
  await sees(person, 'the button held', (card) => card.buttons === 1);
  await person.page.mouse.up();
  await person.page.mouse.wheel(0, -150);
  await sees(person, 'the wheel', (card) => card.buttons === 0 && card.wheel > 0);

  await person.type('Hello, Yunju!');
  // Thirteen characters, three of them with shift, which goes up last: after the exclamation mark.
  const presses = await sees(person, 'the keys', (card) => card.presses === 16 && card.key === 42 && !card.down);
  assert.equal(presses.patch, patchAfter(presses.presses));
  await person.keep('card-typed');
  assert.deepEqual(person.errors, []);
});

test('the guest follows the size of the window, and fits into it when it must not', async (t) => {
  const { service, person } = await desktop(t);
  await service.yunju('start', 'card');
  await person.open('card');
  await person.page.setViewportSize({ width: 1000, height: 760 });
  await person.fitted();
  await sees(person, 'a whole card', (card) => card.starts === 1);
  await person.scaled();
  await person.page.setViewportSize({ width: 700, height: 600 });
  await until('the picture scaled into the window', async () => {
    const box = await person.canvas.boundingBox();
    return box.width <= 700 && (await person.size()).width > 900;
  });
  await person.move(650, 300);
  await sees(person, 'the pointer where it is seen', (card) => Math.abs(card.x - 650) <= 1 && Math.abs(card.y - 300) <= 1);
});

test('two people see the same and caps lock is lit for both', async (t) => {
  const { service, browser, person } = await desktop(t);
  await service.yunju('start', 'card');
  const other = await Person.arrive(browser, service.url);
  await other.logIn('me', PASSWORD);
  await other.part('desktop-list').waitFor();
  await person.open('card');
  await other.open('card');
  await person.scaled();
  await other.scaled();
  await person.move(300, 600);
  await person.type('both');
  await sees(other, 'what the first one did', (card) => card.presses === 4 && card.x === 300 && card.y === 600);
  await other.page.keyboard.press('CapsLock');
  await sees(person, 'the lamp', (card) => card.lamps & 2);
  const [mine, theirs] = await Promise.all([person, other].map((p) => p.rectangle(0, 0, 1000, 340)));
  assert.ok(mine.equals(theirs), 'the two pictures are the same');
});

test('the page comes back by itself when the machine restarts, and the disk remembers', async (t) => {
  const { service, person } = await desktop(t);
  await service.yunju('start', 'card');
  await person.open('card');
  await sees(person, 'the first start', (card) => card.starts === 1);
  await service.yunju('restart', 'card');
  await person.connected();
  await sees(person, 'the second start', (card) => card.starts === 2);
});

test('the machine outlives a service that is killed, and the page comes back', async (t) => {
  const { service, person } = await desktop(t);
  await service.yunju('start', 'card');
  await person.open('card');
  await person.type('abc');
  await sees(person, 'the keys', (card) => card.presses === 3);
  await service.end('SIGKILL');
  await person.state('reconnecting');
  await service.serve();
  await person.connected();
  const card = await sees(person, 'the same machine', (state) => state.presses === 3);
  assert.equal(card.starts, 1);
});

test('a machine that is killed is shown with its reason and can be started again', async (t) => {
  const { service, person } = await desktop(t);
  await service.yunju('start', 'card');
  const list = JSON.parse(await service.yunju('ls', '-o', 'json'));
  assert.equal(list[0].state, 'running');
  // it counts its starts on its disk: not before this is done
  await person.open('card');
  await sees(person, 'the first start', (state) => state.starts === 1);
  await person.page.goto(person.url);
  process.kill((await service.processes('card')).vmm.pid, 'SIGKILL');
  await person.card('card').getByTestId('desktop-reason').waitFor();
  await person.keep('desktop-died');
  await person.card('card').getByTestId('desktop-start').click();
  await person.open('card');
  await sees(person, 'the second start', (state) => state.starts === 2);
});
