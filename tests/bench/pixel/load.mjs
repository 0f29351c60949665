// The portal's first load in Chromium, nine times. Prints one JSON object: KiB and requests of the heaviest, and when a desktop
// could be opened, in milliseconds since the address was asked for.

import { Person, launch } from '../../lib/browser.mjs';
import { firstLoad } from '../../lib/load.mjs';
import { Service } from '../../lib/service.mjs';

const ROUNDS = 9;
const ends = [];
const test = { after: (end) => ends.unshift(end) };
try {
  const service = await Service.start(test, ['--stop-machines']);
  const password = (await service.yunju('user', 'add', 'me')).trim();
  await service.yunju('create', 'card', '--image', 'card', '--owner', 'me', '--start');
  const browser = await launch(test);
  const person = await Person.arrive(browser, service.url);
  await person.logInFirst('me', password, 'a long enough password');
  const cookies = await person.page.context().cookies();
  await person.page.context().close();
  const loads = [];
  for (let n = 0; n < ROUNDS; n += 1) loads.push(await firstLoad(browser, service.url, cookies, 'card'));
  console.log(JSON.stringify({
    kib: Math.max(...loads.map(({ bytes }) => bytes)) / 1024, requests: Math.max(...loads.map(({ requests }) => requests)), times: loads.map(({ interactive }) => interactive),
  }));
} finally {
  for (const end of ends) await end();
}
