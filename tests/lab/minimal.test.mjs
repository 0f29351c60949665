// A stock Debian kernel under real KVM, without a desktop: quick looks at what only a real kernel exercises.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../lib/browser.mjs';
import { Lab } from '../lib/lab.mjs';
import { IMAGES } from '../lib/service.mjs';

test('a stock kernel', { timeout: 900_000 }, async (t) => {
  const lab = await Lab.start(t);
  const ready = () => lab.yunju('console', 'minimal', '--until', 'YUNJU-GUEST-READY', '--timeout', '120');
  const run = (command) => lab.guest('minimal', command);
  await lab.yunju('user', 'add', 'me');
  await lab.yunju('create', 'minimal', '--image', 'minimal', '--owner', 'me', '--cpus', '2', '--start');
  await ready();

  await t.test('starts both processors, keeps time and finds its devices', async () => {
    assert.equal((await run('grep -c ^processor /proc/cpuinfo')).trim(), '2');
    assert.match(await run('cat /sys/devices/system/clocksource/clocksource0/current_clocksource'), /kvm-clock/);
    const guest = Number((await run('date +%s')).trim());
    assert.ok(Math.abs(guest - Number(await lab.run('date +%s'))) <= 30, `the guest's clock says ${guest}`);
    assert.match(await run('ls /sys/class/rtc'), /rtc0/);
    assert.match(await run('ls /dev/hwrng'), /hwrng/);
  });

  await t.test('gets an address from its user-mode network', async () => {
    await run('udhcpc -q -n -i eth0 || udhcpc -q -n');
    assert.match(await run('ip -4 addr show'), /inet 10\.0\.2\.15/);
  });

  await t.test('restarts itself in the same process', async () => {
    const { pid, resets } = JSON.parse(await machine(lab));
    assert.equal(resets, 0);
    await lab.yunju('console', 'minimal', '--exec', 'reboot -f', '--timeout', '2').catch(() => {});
    await until('one reset', async () => JSON.parse(await machine(lab)).resets === 1, 60_000);
    await until('its shell', async () => (await lab.guest('minimal', 'echo again', 10)).includes('again'), 120_000);
    assert.equal(JSON.parse(await machine(lab)).pid, pid);
  });

  await t.test('is frozen by pause and goes on by resume', async () => {
    assert.equal(JSON.parse(await machine(lab, 'POST', '/pause')).state, 'paused');
    await assert.rejects(lab.yunju('console', 'minimal', '--timeout', '3', '--exec', 'echo frozen'));
    assert.equal(JSON.parse(await machine(lab, 'POST', '/resume')).state, 'running');
    await until('an answer', async () => (await run('echo thawed')).includes('thawed'), 60_000);
  });

  await t.test('shuts down by its power button, and the reason is shown', async () => {
    await lab.yunju('stop', 'minimal');
    const [desktop] = JSON.parse(await lab.yunju('ls', '-o', 'json'));
    assert.equal(desktop.state, 'stopped');
    assert.match(JSON.stringify(desktop), /powered off by the guest/);
  });

  await t.test('boots as bzImage too', async () => {
    const image = `${IMAGES}/minimal`;
    await lab.run(`yunju-vmm run --kernel ${image}/bzImage --initrd ${image}/initrd --cmdline 'console=ttyS0 quiet' \
      --memory 256M --serial file:/tmp/bz.log --control unix:/tmp/bz.sock 2> /tmp/bz.err &`);
    await until('its shell', () => lab.run('grep -q YUNJU-GUEST-READY /tmp/bz.log && echo yes'), 120_000);
    await lab.run('curl -s --unix-socket /tmp/bz.sock -X POST http://machine/machine/power-button');
    await until('its end', () => lab.run('grep "powered off by the guest" /tmp/bz.err'), 60_000);
  });
});

/** Asks the control API of the machine called `minimal`. */
const machine = (lab, method = 'GET', path = '') =>
  lab.run(`curl -sf --unix-socket /data/yunju/desktops/*/run/control.sock -X ${method} http://machine/machine${path}`);
