// A Debian desktop that sleeps and wakes, is forked, undone and outlives its image, with all that a person left open.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Person, launch, until } from '../lib/browser.mjs';
import { Lab } from '../lib/lab.mjs';
import { IMAGES } from '../lib/service.mjs';

const PASSWORD = 'a long enough password';
const SLOW = 300_000;
const ROUNDS = 10;
const FORKS = ['fork-1', 'fork-2', 'fork-3', 'fork-4', 'fork-5'];

/** A film for a terminal: bands of all colours that move. */
const FILM = `$| = 1;
for (my $n = 0; ; $n += 5) {
  my $picture = "\\e[H";
  for my $y (0 .. 19) {
    for my $x (0 .. 29) { $picture .= sprintf "\\e[48;2;%d;%d;%dm  ", map { ($x * 8 + $y * 5 + $n * $_) % 256 } 1, 2, 3 }
    $picture .= "\\e[0m\\r\\n";
  }
  print $picture;
  select undef, undef, undef, 0.5;
}`;

/** A program as a package. */
const PROGRAM = `p=$(mktemp -d); mkdir -p $p/DEBIAN $p/usr/bin; printf '#!/bin/sh\\necho still here\\n' > $p/usr/bin/left-behind; chmod 755 $p $p/usr/bin/left-behind;
printf 'Package: left-behind\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody <nobody@localhost>\\nDescription: stays\\n' > $p/DEBIAN/control;
dpkg-deb -b $p /tmp/p.deb && dpkg -i /tmp/p.deb; sync`.replaceAll('\n', ' ');

/** Another build of the image takes its name; its files are the same ones. */
const BUILDS = '/data/images/.built';
const build = (name) => `mkdir -p ${BUILDS} && cp -rs ${IMAGES}/desktop/. ${BUILDS}/${name}`;
const publish = (name) => `ln -sfn .built/${name} /data/images/desktop`;
const UPDATE = `${build('two')} && rm ${BUILDS}/two/image.json && sed 's/"digest": "[^"]*"/"digest": "sha256:two"/' ${BUILDS}/one/image.json > ${BUILDS}/two/image.json && ${publish('two')}`;

test('a desktop that sleeps', { timeout: 2_400_000 }, async (t) => {
  const lab = await Lab.start(t, {
    prepare: `${build('one')} && ${publish('one')}`, images: '/data/images', flags: '--no-warm --memory-overcommit 3 --suspend-after 0 --point-every 0 --jail require',
  });
  const browser = await launch(t);
  const run = (command, name = 'desktop', seconds = 300) => lab.guest(name, command, seconds);
  const show = async (name = 'desktop') => JSON.parse(await lab.yunju('show', name, '-o', 'json'));
  const vmms = () => lab.run('pgrep -c yunju-vmm || true');
  /** A desktop that sleeps has no machine: the process ends a moment after it has said so. */
  const gone = () => until('no machine', async () => (await vmms()) === '0');
  const clock = async () => Number(await lab.run('date +%s.%N'));
  const timed = async (work) => {
    const begun = Date.now();
    await work();
    return (Date.now() - begun) / 1000;
  };
  /** Starts a program in the person's session, as the panel would. */
  const start = (command) => run(`cd /home/user; xargs -0 -a /proc/$(pgrep -xo waybar)/environ sh -c '(setpriv --reuid=user --regid=user --init-groups env -i "$@" ${command} > /dev/null 2>&1 &)' start`);

  let person;
  let broken = false;
  /** One of the things that it does; without it there is no sense in those after it. */
  const step = (name, work) => t.test(name, { skip: broken }, async () => {
    try {
      await work();
    } catch (error) {
      broken = true;
      await person?.keep('suspend-broken');
      throw error;
    }
  });

  const boot = await timed(() => lab.run('yunju image warm desktop', 900_000));
  const oneTime = (await lab.yunju('user', 'add', 'me', '--admin')).split('\n').at(-1).trim();
  await lab.yunju('create', 'desktop', '--image', 'desktop', '--owner', 'me');

  await step('of a warmed image does not boot, and is nobody else', async () => {
    const seconds = await timed(() => lab.yunju('start', 'desktop'));
    t.diagnostic(`warming took ${boot} s, starting ${seconds} s`);
    assert.ok(seconds < boot / 3, `starting took ${seconds} s, warming ${boot} s`);
    await named('desktop');
  });

  person = await Person.arrive(browser, lab.url, { patience: SLOW });
  await person.logInFirst('me', oneTime, PASSWORD);
  await person.open('desktop');
  await person.fitted();

  /** Its own name and machine id. */
  async function named(name) {
    const wanted = `${name} ${(await show(name)).id.replaceAll('-', '')}`;
    await until('its own name', async () => (await run('echo $(hostname) $(cat /etc/machine-id)', name)) === wanted, SLOW);
  }
  /** A half of the picture, without frames and panel. */
  const half = async (right) => {
    const { width, height } = await person.size();
    return person.rectangle(right ? width / 2 + 20 : 20, 60, width / 2 - 40, height - 160);
  };
  const different = (a, b) => {
    let count = 0;
    for (let i = 0; i < a.length; i += 4) if (a.readUInt32LE(i) !== b.readUInt32LE(i)) count += 1;
    return count;
  };
  const plays = () => until('a film that plays', async () => {
    const before = await half(true);
    return different(before, await half(true)) > 10_000;
  }, SLOW);
  /** How much of some pixels is white. */
  const white = (pixels) => {
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i] > 250 && pixels[i + 1] > 250 && pixels[i + 2] > 250) count += 1;
    return count / (pixels.length / 4);
  };

  let typed = 'A draft that nobody saved. ';
  await step('shows a film beside an unsaved document', async () => {
    await run(`echo ${Buffer.from(FILM).toString('base64')} | base64 -d > /tmp/film.pl; : > /home/user/draft.txt; chown user: /home/user/draft.txt`);
    await start('mousepad draft.txt');
    // a key before it has a window is another window's
    await until('its window', async () => white(await half(false)) > 0.2, SLOW);
    await until('its window at the left', async () => {
      await person.page.keyboard.press('Meta+ArrowLeft');
      return white(await half(false)) > 0.9;
    }, SLOW);
    await start('foot perl /tmp/film.pl');
    await plays();
    await until('its window at the right', async () => {
      await person.page.keyboard.press('Meta+ArrowRight');
      const before = await half(true);
      return different(before, await half(true)) > 10_000 && white(await half(false)) > 0.9;
    }, SLOW);
    await person.click(300, 300);
    const empty = await half(false);
    await person.type(typed);
    // more than a cursor that blinks
    await until('the text', async () => different(empty, await half(false)) > 500, SLOW);
    await plays();
    await person.keep('suspend-before');
  });

  await step(`sleeps and wakes ${ROUNDS} times, and all is as it was`, async () => {
    await run('head -c 2M /dev/urandom > /tmp/r; for i in $(seq 8); do cat /tmp/r; done > /dev/shm/random; cat /tmp/r /tmp/r > /home/user/random; sync');
    const look = 'sha256sum < /dev/shm/random; dd if=/home/user/random iflag=direct bs=1M 2> /dev/null | sha256sum; '
      + 'pgrep -x "labwc|mousepad|foot|perl"; ip -o -4 addr show scope global; wc -c < /home/user/draft.txt; dmesg -l emerg,alert,crit,err | wc -l; date +%s.%N';
    const seen = async () => {
      const lines = (await run(look)).split('\n');
      return { time: Number(lines.pop()), rest: lines.map((line) => line.replace(/ valid_lft.*/, '')).join('\n') };
    };
    const { rest: before } = await seen();
    const reseeded = async () => Number(await run('dmesg | grep -c "crng reseeded due to virtual machine fork"'));
    const seeds = await reseeded();
    for (let round = 1; round <= ROUNDS; round += 1) {
      const document = await half(false);
      const suspending = await timed(() => lab.yunju('suspend', 'desktop'));
      assert.equal((await show()).state, 'suspended');
      await gone();
      const resuming = await timed(() => lab.yunju('resume', 'desktop'));
      await person.connected();
      await person.type(`wake${round} `);
      typed += `wake${round} `;
      const earliest = await clock();
      const { time, rest } = await seen();
      const latest = await clock();
      assert.equal(rest, before, `round ${round}`);
      assert.ok(earliest - 0.5 < time && time < latest + 0.5, `round ${round}: the guest's clock says ${time}, not ${earliest} to ${latest}`);
      assert.ok(different(document, await half(false)) < 10_000, `round ${round}: the document looks different`);
      t.diagnostic(`round ${round}: suspended in ${suspending} s, resumed in ${resuming} s`);
    }
    await plays();
    await person.keep('suspend-after');
    await person.page.keyboard.press('Control+s');
    await until('all that was typed', async () => {
      const text = (await run('cat /home/user/draft.txt')).trim();
      if (text && text !== typed.trim()) throw new Error(`the document is ${text}, not ${typed}`);
      return text;
    }, SLOW);
    assert.equal(await reseeded(), seeds + ROUNDS, 'its random numbers are new each time');
  });

  await step('reaches the network as before', async () => {
    await until('a page of the mirror', () => run('curl -sfI -m 20 http://deb.debian.org/debian/dists/trixie/InRelease'), SLOW);
  });

  const other = await Person.arrive(browser, lab.url, { patience: SLOW });
  await step('wakes when its page is opened', async () => {
    await lab.yunju('suspend', 'desktop');
    await gone();
    await other.logIn('me', PASSWORD);
    await other.part('desktop-list').waitFor();
    await other.open('desktop');
    assert.equal((await show()).state, 'running');
  });

  await step('has back what was deleted after it is undone', async () => {
    const draft = () => run('cat /home/user/draft.txt 2> /dev/null || echo gone');
    await lab.yunju('snapshot', 'create', 'desktop', '--name', 'before');
    await run('rm /home/user/draft.txt; sync');
    await lab.yunju('snapshot', 'restore', 'desktop', 'before');
    assert.equal(await draft(), typed.trim());
    await lab.yunju('undo', 'desktop');
    assert.equal(await draft(), 'gone', 'undo undoes the restore');
    await lab.yunju('undo', 'desktop');
    assert.equal(await draft(), typed.trim());
  });

  await step(`has ${FORKS.length} forks that are machines of their own`, async () => {
    await run('pkill -x foot; true');
    await lab.yunju('fork', 'desktop', ...FORKS);
    await lab.yunju('suspend', 'desktop');
    await lab.yunju('start', ...FORKS);
    const numbers = new Set();
    for (const name of FORKS) {
      await named(name);
      const [text, random, processes] = (await run('cat /home/user/draft.txt; echo; head -c 16 /dev/urandom | sha256sum; pgrep -xc mousepad', name)).split('\n').filter(Boolean);
      assert.deepEqual({ text: text.trim(), processes }, { text: typed.trim(), processes: '1' });
      numbers.add(random);
    }
    assert.equal(numbers.size, FORKS.length, [...numbers].join(' '));
    assert.equal(await vmms(), String(FORKS.length * 2), 'all run at once');
    await other.page.goto(lab.url);
    await other.open(FORKS.at(-1));
    await other.keep('suspend-fork');
    await lab.yunju('rm', '--yes', ...FORKS);
  });

  await step('keeps its programs when its image is replaced while it is stopped', async () => {
    await lab.yunju('resume', 'desktop');
    await run(PROGRAM);
    assert.equal(await run('left-behind'), 'still here');
    await lab.yunju('stop', 'desktop');
    await lab.run(UPDATE);
    const [image] = JSON.parse(await lab.yunju('image', 'ls', '-o', 'json'));
    assert.deepEqual([image.digest, image.problem ?? ''], ['sha256:two', '']);
    await lab.yunju('start', 'desktop');
    await lab.yunju('console', 'desktop', '--until', 'YUNJU-DESKTOP-READY', '--timeout', '300');
    assert.equal(await run('left-behind && dpkg-query -W left-behind && cat /home/user/draft.txt'), `still here\nleft-behind\t1\n${typed.trim()}`);
  });
  assert.deepEqual([...person.errors, ...other.errors], []);
});
