// A stock kernel that the monitor freezes and lets go on: everything that only a real kernel notices.

import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { until } from '../lib/browser.mjs';
import { Lab } from '../lib/lab.mjs';
import { IMAGES } from '../lib/service.mjs';

const SERIAL = path.join(import.meta.dirname, '../lib/serial.py');
const IMAGE = `${IMAGES}/minimal`;
/** Words of a kernel that is not well. */
const TROUBLE = 'rcu.*stall|soft lockup|hard lockup|hung_task|WARNING:|BUG:|Oops|clocksource.*unstable';
const ROUNDS = 10;

/** A machine of the image `minimal` in the lab, called `name`, with a disk that all of that name share. */
class Machine {
  constructor(lab, name) {
    Object.assign(this, { lab, name });
  }

  /** Boots, or goes on from a snapshot. */
  async run(snapshot) {
    const { lab, name } = this;
    this.from = snapshot;
    const restore = snapshot ? `--restore ${snapshot.folder}${snapshot.base ? `,base=${snapshot.base}` : ''}` : '';
    await lab.run(`rm -f /tmp/${name}.sock /tmp/${name}.ctl /tmp/v-${name}/*; mkdir -p /tmp/v-${name}; [ -f /tmp/${name}.img ] || truncate -s 16M /tmp/${name}.img`);
    await lab.run(`yunju-vmm run --kernel ${IMAGE}/vmlinux --initrd ${IMAGE}/initrd \
      --cmdline 'console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off 8250.nr_uarts=1' --memory 256M --cpus 2 \
      --disk /tmp/${name}.img --serial unix:/tmp/${name}.sock --vsock 3,/tmp/v-${name}/s --control unix:/tmp/${name}.ctl ${restore} 2> /tmp/${name}.err &`);
    await until('its serial port', () => lab.run(`[ -S /tmp/${name}.sock ] && echo yes || { cat /tmp/${name}.err; false; }`), 60_000);
  }

  shell(command) {
    return this.lab.run(`python3 '${SERIAL}' /tmp/${this.name}.sock '${command.replaceAll("'", "'\\''")}'`);
  }

  /** What the kernel complained of. */
  async trouble() {
    return (await this.shell(`dmesg | grep -E "${TROUBLE}"`)).trim();
  }

  /** Takes a snapshot into `folder` and ends. It may be a difference to an earlier one. */
  async freeze(folder) {
    const info = JSON.parse(await this.lab.run(`yunju-vmm snapshot --control unix:/tmp/${this.name}.ctl --to ${folder} --end`));
    await until('its end', () => this.lab.run(`grep 'machine ended' /tmp/${this.name}.err`), 30_000);
    return { folder, info, base: info.differential ? (this.from.base ?? this.from.folder) : undefined };
  }

  /** How far the guest's clock is ahead of the lab's, in seconds: at least and at most. */
  async clock() {
    const text = await this.lab.run(`python3 '${SERIAL}' --times /tmp/${this.name}.sock adjtimex`);
    const [before, after] = text.split('\n')[0].split(' ').map(Number);
    const [seconds, fraction] = ['tv_sec', 'tv_usec'].map((field) => Number(new RegExp(`${field}:\\s*(\\d+)`).exec(text)[1]));
    const guest = seconds + fraction / 1e6;
    return [guest - after, guest - before];
  }
}

test('a stock kernel that is frozen and goes on', { timeout: 900_000 }, async (t) => {
  const lab = await Lab.start(t);
  const machine = new Machine(lab, 'one');
  await machine.run();
  await until('its shell', () => machine.shell('echo up'), 120_000);
  await machine.shell('dd if=/dev/urandom of=/dev/shm/random bs=1M count=16 2>/dev/null; sha256sum /dev/shm/random > /dev/shm/sum');
  await machine.shell('dd if=/dev/urandom of=/dev/vda bs=1M count=8 conv=fsync 2>/dev/null; sha256sum /dev/vda > /dev/shm/disk');
  await machine.shell('(while sleep 0.1; do echo >> /dev/shm/ticks; done) > /dev/null 2>&1 & echo $! > /dev/shm/pid');
  // The lab's processor is not quite what it says, which kernels remark at their start.
  const before = await machine.trouble();
  const clock = await machine.clock();
  t.diagnostic(`the clock is ${clock} s ahead`);
  const uptimes = [Number((await machine.shell('cut -d. -f1 /proc/uptime')).trim())];
  await t.test(`does so ${ROUNDS} times with memory, disk and processes as they were`, async () => {
    for (let round = 1; round <= ROUNDS; round += 1) {
      const snapshot = await machine.freeze(`/tmp/snapshot-${round}`);
      t.diagnostic(JSON.stringify(snapshot.info));
      await machine.run(snapshot);
      const now = await machine.clock();
      const moved = Math.max(0, clock[0] - now[1], now[0] - clock[1]);
      assert.ok(moved <= 0.1, `round ${round}: the clock was ${clock} s ahead, now it is ${now} s`);
      assert.match(await machine.shell('sha256sum -c /dev/shm/sum'), /OK/);
      assert.match(await machine.shell('echo 3 > /proc/sys/vm/drop_caches; sha256sum -c /dev/shm/disk'), /OK/);
      const ticks = async () => Number((await machine.shell('kill -0 $(cat /dev/shm/pid) && wc -l < /dev/shm/ticks')).trim());
      const first = await ticks();
      await until('timers that go on', async () => (await ticks()) > first, 30_000);
      uptimes.push(Number((await machine.shell('cut -d. -f1 /proc/uptime')).trim()));
      assert.ok(uptimes.at(-1) >= uptimes.at(-2), `uptime went back: ${uptimes}`);
      const needed = [snapshot.folder, snapshot.base].map((folder) => `! -path '${folder}'`).join(' ');
      await lab.run(`find /tmp -maxdepth 1 -name 'snapshot-*' ${needed} -exec rm -r {} +`);
    }
  });

  await t.test('stirs its random numbers each time', async () => {
    const log = await machine.shell('dmesg | grep -c "crng reseeded due to virtual machine fork"');
    assert.equal(Number(log.trim()), ROUNDS);
  });

  await t.test('sleeps for as long as it means to', async () => {
    const [slept] = (await machine.shell('a=$(cut -d" " -f1 /proc/uptime); sleep 2; b=$(cut -d" " -f1 /proc/uptime); awk "BEGIN { print $b - $a }"')).split('\n').map(Number);
    assert.ok(slept >= 2 && slept < 10, `${slept} s`);
    const [start, end] = (await lab.run(`date +%s.%N; python3 '${SERIAL}' /tmp/one.sock 'sleep 3' >&2; date +%s.%N`)).split('\n').map(Number);
    assert.ok(end - start >= 2.9, `3 s of the guest were ${end - start} s`);
  });

  await t.test('its kernel has nothing to complain of', async () => {
    assert.equal(await machine.trouble(), before);
    assert.match(await machine.shell('cat /sys/devices/system/clocksource/clocksource0/current_clocksource'), /kvm-clock/);
    assert.equal((await machine.shell('grep -c ^processor /proc/cpuinfo')).trim(), '2');
  });

  await t.test('two machines from one snapshot have different random numbers', async () => {
    const snapshot = await machine.freeze('/tmp/twins');
    const twins = ['left', 'right'].map((name) => new Machine(lab, name));
    for (const twin of twins) {
      await lab.run(`cp --sparse=always /tmp/one.img /tmp/${twin.name}.img`);
      await twin.run(snapshot);
    }
    const numbers = await Promise.all([0, 1].map(async (index) => twins[index].shell('head -c 16 /dev/urandom | sha256sum')));
    assert.notEqual(numbers[0].trim(), numbers[1].trim());
    for (const twin of twins) {
      assert.match(await twin.shell('sha256sum -c /dev/shm/sum'), /OK/);
      assert.equal(await twin.trouble(), before);
    }
  });

  await t.test('restarts after it has been frozen, and powers off', async () => {
    const left = new Machine(lab, 'left');
    await left.shell('{ sleep 1; reboot -f; } > /dev/null 2>&1 & true');
    await until('one reset', async () => /"resets":1/.test(await lab.run('curl -sf --unix-socket /tmp/left.ctl http://machine/machine')), 60_000);
    await until('its shell', () => left.shell('[ ! -e /dev/shm/sum ] && echo anew'), 120_000);
    await lab.run('curl -s --unix-socket /tmp/left.ctl -X POST http://machine/machine/power-button');
    await until('its end', () => lab.run('grep "powered off by the guest" /tmp/left.err'), 60_000);
  });
});
