// A stock kernel gives memory back to the host, and has it again when it needs it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../lib/browser.mjs';
import { Lab } from '../lib/lab.mjs';

const MIB = 1 << 20;

test('memory of a stock kernel', { timeout: 900_000 }, async (t) => {
  const lab = await Lab.start(t);
  const run = (command) => lab.guest('minimal', command, 120);
  await lab.yunju('user', 'add', 'me');
  await lab.yunju('create', 'minimal', '--image', 'minimal', '--owner', 'me', '--start');
  await lab.yunju('console', 'minimal', '--until', 'YUNJU-GUEST-READY', '--timeout', '120');
  await run('mkdir -p /mnt/fill && mount -t tmpfs -o size=90% fill /mnt/fill');
  const fill = (count) => run(`dd if=/dev/zero of=/mnt/fill/file bs=1M count=${count} && rm /mnt/fill/file`);
  const settled = (below) => async () => (await memory(lab)).private < below;

  await t.test('what it fills and frees is the host\'s again', async () => {
    await run('dd if=/dev/zero of=/mnt/fill/file bs=1M count=100');
    const full = await memory(lab);
    assert.ok(full.private > 100 * MIB, JSON.stringify(full));
    await run('rm /mnt/fill/file');
    await until('most of it given back', settled(full.private - 80 * MIB), 60_000);
    const { reported } = await memory(lab);
    assert.ok(reported >= full.reported + 80 * MIB, `${reported} bytes reported`);
  });

  await t.test('its balloon takes what it can do without, and gives way before anything is killed', async () => {
    await memory(lab, 'POST', 'balloon', { size: 100 * MIB });
    await until('a full balloon', async () => (await memory(lab)).balloon === 100 * MIB, 60_000);
    await until('the guest\'s own figure', async () => (await memory(lab)).available < 100 * MIB, 60_000);
    await fill(110);
    const { balloon } = await memory(lab);
    assert.ok(balloon < 90 * MIB, `the balloon still holds ${balloon} bytes`);
    assert.doesNotMatch(await run('dmesg'), /Out of memory|Killed process/);
  });

  await t.test('an emptied balloon gives all of it back', async () => {
    await memory(lab, 'POST', 'balloon', { size: 0 });
    await until('an empty balloon', async () => (await memory(lab)).balloon === 0, 60_000);
    await fill(150);
  });
});

/** What the control API says of the machine's memory. */
async function memory(lab, method = 'GET', path = 'memory', body) {
  const data = body ? `-d '${JSON.stringify(body)}'` : '';
  const socket = '/data/yunju/desktops/*/run/control.sock';
  return JSON.parse(await lab.run(`curl -sf --unix-socket ${socket} -X ${method} ${data} http://machine/machine/${path}`));
}
