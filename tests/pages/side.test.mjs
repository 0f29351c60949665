// Clipboard, typed text, layout, wheel and locked pointer in a browser, with a stand-in for the guest's agent.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Agent } from '../lib/agent.mjs';
import { Person, launch, until } from '../lib/browser.mjs';
import { read } from '../lib/card.mjs';
import { Service } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';
const ALLOWED = { permissions: ['clipboard-read', 'clipboard-write'] };

async function desktop(t, { flags = [], browse = ALLOWED } = {}) {
  const service = await Service.start(t, ['--stop-machines', ...flags]);
  const oneTime = (await service.yunju('user', 'add', 'me', '--admin')).trim();
  await service.yunju('create', 'card', '--image', 'card', '--owner', 'me');
  await service.yunju('start', 'card');
  const person = await Person.arrive(await launch(t), service.url, browse);
  await person.logInFirst('me', oneTime, PASSWORD);
  await person.open('card');
  await until('a whole card', async () => (await read(person)).starts === 1);
  return { service, person, agent: () => Agent.of(t, service, 'card') };
}

/** This device's clipboard, as text or as the base64 of a picture. */
const clipboard = (person) => person.page.evaluate(async () => {
  const [item] = await navigator.clipboard.read();
  if (item.types.includes('text/plain')) return (await item.getType('text/plain')).text();
  const bitmap = await createImageBitmap(await item.getType('image/png'));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  return `${bitmap.width}x${bitmap.height}: ${canvas.getContext('2d').getImageData(0, 0, 1, 1).data}`;
});

/** A picture of one colour as PNG. */
const picture = async (person, width, height, colour) => Buffer.from(await person.page.evaluate(async ([w, h, fill]) => {
  const canvas = new OffscreenCanvas(w, h);
  const context = canvas.getContext('2d');
  context.fillStyle = fill;
  context.fillRect(0, 0, w, h);
  return [...new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer())];
}, [width, height, colour]));

/** Waits until something can be pressed. */
const enabled = (person, name) => until(name, async () => (await person.part(name).isEnabled()));

test('what is copied on either side can be pasted on the other, text and pictures', async (t) => {
  const { person, agent } = await desktop(t);
  const guest = await agent();
  await guest.told('layout', () => true); // the page knows of it

  guest.say({ type: 'clip', kind: 'text' }, Buffer.from('from the guest: 汉字\nline'));
  await until('text of the guest here', async () => (await clipboard(person)) === 'from the guest: 汉字\nline');
  const red = await picture(person, 40, 30, 'rgb(250,10,20)');
  guest.say({ type: 'clip', kind: 'png' }, red);
  await until('a picture of the guest here', async () => (await clipboard(person)) === '40x30: 250,10,20,255');

  await person.page.evaluate(() => navigator.clipboard.writeText('from here: ü\nline'));
  await person.click(600, 400);
  const before = (await read(person)).presses;
  await person.page.keyboard.press('Control+v', { delay: 50 });
  await guest.told('clip', ({ kind, bytes }) => kind === 'text' && bytes.toString() === 'from here: ü\nline');
  await until('the keys after it', async () => (await read(person)).presses >= before + 2);

  await person.page.evaluate(async (bytes) => {
    const blob = new Blob([new Uint8Array(bytes)], { type: 'image/png' });
    await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
  }, [...(await picture(person, 7, 5, 'rgb(1,2,250)'))]);
  await person.page.keyboard.press('Control+v', { delay: 50 });
  await guest.told('clip', ({ kind, bytes }) => kind === 'png' && bytes.readUInt32BE(16) === 7 && bytes.readUInt32BE(20) === 5);

  const large = 'x'.repeat((1 << 20) - 3);
  await person.page.evaluate((text) => navigator.clipboard.writeText(text), large);
  await person.page.keyboard.press('Control+v', { delay: 50 });
  await guest.told('clip', ({ bytes }) => bytes.length === large.length);
  assert.deepEqual(person.errors, []);
});

test('where the browser forbids it the panel shows what was copied and takes what is to be pasted', async (t) => {
  const { person, agent } = await desktop(t, { browse: { locale: 'en' } });
  await person.tool('clipboard');
  await person.keep('clipboard-without-helper');
  assert.match(await person.part('clipboard-said').textContent(), /helper is not there/);
  assert.equal(await person.part('clipboard-give').isEnabled(), false);
  const guest = await agent();
  await enabled(person, 'clipboard-give');
  await person.part('clipboard-text').fill('by hand');
  await person.part('clipboard-give').click();
  await guest.told('clip', ({ bytes }) => bytes.toString() === 'by hand');
  guest.say({ type: 'clip', kind: 'text' }, Buffer.from('shown'));
  await until('what was copied', async () => (await person.part('clipboard-text').inputValue()) === 'shown');
  await person.keep('clipboard');
  guest.say({ type: 'clip', kind: 'png' }, await picture(person, 60, 40, 'teal'));
  await person.part('clipboard-picture').waitFor();
  assert.deepEqual(person.errors, []);
});

test('a service that lets nothing out says so, and nothing comes out', async (t) => {
  const { person, agent } = await desktop(t, { flags: ['--clipboard', 'to-guest'], browse: { ...ALLOWED, locale: 'en' } });
  await person.page.evaluate(() => navigator.clipboard.writeText('mine'));
  const guest = await agent();
  guest.say({ type: 'clip', kind: 'text' }, Buffer.from('secret'));
  await person.tool('clipboard');
  await until('the word about it', async () => /stays there/.test(await person.part('clipboard-said').textContent()));
  await enabled(person, 'clipboard-give');
  // what comes after it on the same way is there, so it would be, too
  guest.say({ type: 'layout', layout: 'fr', variant: '' });
  await person.page.locator('body[data-layout="fr"]').waitFor();
  assert.equal(await clipboard(person), 'mine');
  assert.equal(await person.part('clipboard-text').inputValue(), '');
});

test('what an input method composes is typed as text, and other keys stay keys', async (t) => {
  const { person, agent } = await desktop(t);
  const guest = await agent();
  await guest.told('layout', () => true);
  await person.tool('text');
  await person.part('setting-text').check();
  await person.leaveToolbar();
  const session = await person.page.context().newCDPSession(person.page);
  await session.send('Input.imeSetComposition', { text: 'zhong', selectionStart: 5, selectionEnd: 5 });
  assert.equal(guest.heard.some(({ type }) => type === 'type'), false, 'what is not chosen yet stays here');
  await session.send('Input.insertText', { text: '中文' });
  await guest.told('type', ({ bytes }) => bytes.toString() === '中文');
  await session.send('Input.insertText', { text: 'é ' });
  await guest.told('type', ({ bytes }) => bytes.toString() === 'é ');
  const { presses } = await read(person);
  await person.page.keyboard.press('ArrowLeft', { delay: 50 });
  await person.page.keyboard.press('Backspace', { delay: 50 });
  await until('two keys', async () => (await read(person)).presses === presses + 2);
  await person.page.keyboard.press('a', { delay: 50 });
  await guest.told('type', ({ bytes }) => bytes.toString() === 'a');
  assert.equal((await read(person)).presses, presses + 2, 'text is no key');

  guest.slow = true; // does not say by itself that it has typed
  const began = Date.now();
  await session.send('Input.insertText', { text: '慢' });
  await person.page.keyboard.press('ArrowLeft');
  await guest.told('type', ({ bytes }) => bytes.toString() === '慢');
  if (Date.now() - began < 400) assert.equal((await read(person)).presses, presses + 2, 'a key waits for the text before it');
  guest.say({ type: 'typed' });
  await until('the key', async () => (await read(person)).presses === presses + 3);
  await session.send('Input.insertText', { text: '哑' });
  await person.page.keyboard.press('ArrowLeft');
  await until('the key, though nobody says that the text is there', async () => (await read(person)).presses === presses + 4);
  assert.deepEqual(person.errors, []);
});

test('the layout follows the browser or what was chosen, and comes again with the agent', async (t) => {
  const { person, agent } = await desktop(t, { browse: { locale: 'de-DE' } });
  await (await agent()).told('layout', ({ layout }) => layout === 'de' || layout === 'us');
  await person.tool('text');
  await person.part('layout').selectOption('fr');
  const later = await agent();
  await later.told('layout', ({ layout }) => layout === 'fr');
  later.say({ type: 'layout', layout: 'fr', variant: '' });
  await person.page.locator('body[data-layout="fr"]').waitFor();
});

test('the wheel turns by parts of a click, as far as the browser scrolls', async (t) => {
  const { person } = await desktop(t);
  await person.scaled();
  await person.move(600, 400);
  await until('the pointer', async () => (await read(person)).x === 600);
  const { wheel } = await read(person);
  for (let n = 0; n < 10; n += 1) await person.page.mouse.wheel(0, -25);
  await until('two clicks and a half', async () => (await read(person)).wheel === wheel + 2);
  assert.deepEqual(person.errors, []);
});

test('a locked pointer stays where it is in the desktop, and its buttons work', async (t) => {
  const { person } = await desktop(t);
  await person.scaled();
  await person.move(600, 400);
  await until('the pointer', async () => (await read(person)).x === 600);
  await person.tool('pointer');
  await person.page.locator('[data-testid="toolbar-pointer"][aria-pressed="true"]').waitFor();
  const { x, y } = await read(person);
  await person.page.mouse.move(300, 300);
  await person.page.mouse.down();
  await until('the button', async () => (await read(person)).buttons === 1);
  await person.page.mouse.up();
  const card = await until('it let go', async () => {
    const state = await read(person);
    return state.buttons === 0 && state;
  });
  assert.deepEqual([card.x, card.y], [x, y], 'steps are no positions');
  assert.deepEqual(person.errors, []);
});

/** Changes what the proxy says to the page beside the screen, as if the service had given its person other rights. */
async function may(page, rights) {
  await page.routeWebSocket(/\/ws\/io$/, (here) => {
    const there = here.connectToServer();
    here.onMessage((message) => there.send(message));
    there.onMessage((message) => {
      const text = message.toString();
      here.send(text.startsWith('{"type":"able"') ? Buffer.from(text.replace(/"may":\{[^}]*\}/, `"may":${JSON.stringify(rights)}`)) : message);
    });
  });
}

test('who may only look on sees no buttons for what they may not do', async (t) => {
  const { person } = await desktop(t, { browse: { locale: 'en' } });
  const hidden = (name) => person.part(`toolbar-${name}`).isHidden();
  for (const name of ['keys', 'text', 'clipboard', 'sound']) assert.equal(await hidden(name), false, name);
  await may(person.page, { input: false, clipboard: false, sound: false });
  await person.page.reload();
  await person.connected();
  await person.part('view-only').waitFor({ state: 'attached' });
  await person.toolbar();
  for (const name of ['keys', 'text', 'clipboard', 'sound', 'pointer']) await until(`no button ${name}`, () => hidden(name));
  await person.tool('display');
  assert.equal(await person.part('setting-view-only').count(), 0, 'there is nothing to choose');
  await person.keep('looks-on');
  assert.deepEqual(person.errors, []);
});

test('two people at one desktop see where the other points, and who types', async (t) => {
  const { person: ann, service } = await desktop(t, { browse: { locale: 'en' } });
  await ann.scaled();
  const bob = await Person.arrive(ann.page.context().browser(), service.url, { locale: 'en', width: 1000, height: 700 });
  await bob.logIn('me', PASSWORD);
  await bob.part('desktop-list').waitFor();
  await bob.open('card');
  await bob.scaled();
  const pointer = ann.part('person');
  await pointer.waitFor({ state: 'attached' });
  for (const [x, y] of [[600, 400], [100, 90]]) {
    await bob.move(x, y);
    await until('the pointer of the other', async () => {
      const [left, top] = await pointer.evaluate((element) => element.style.translate.split(' ').map(parseFloat));
      const [box, layer] = [await ann.place(x, y), await ann.part('people').boundingBox()];
      return (await pointer.getAttribute('data-here')) === 'true' && Math.abs(left + layer.x - box[0]) < 2 && Math.abs(top + layer.y - box[1]) < 2;
    });
  }
  const name = (await pointer.getAttribute('data-name')) || 'Somebody';
  assert.equal(await pointer.locator('.label').textContent(), name);
  await until('who is there', async () => (await ann.part('people-said').textContent()) === `with ${name}`);
  await bob.page.keyboard.down('a');
  await until('who types', async () => (await ann.part('people-said').textContent()) === `${name} types`);
  await ann.toolbar();
  await ann.keep('people');
  await bob.page.keyboard.up('a');
  await until('the end of it', async () => (await ann.part('people-said').textContent()) === `with ${name}`);
  await bob.page.mouse.move(500, 2);
  await until('a pointer that has left', async () => (await pointer.getAttribute('data-here')) === 'false');
  await bob.page.context().close();
  await pointer.waitFor({ state: 'detached' });
  await until('nobody', () => ann.part('people-said').isHidden());
  assert.deepEqual([...ann.errors, ...bob.errors], []);
});
