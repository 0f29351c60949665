// What the page reads along of the stream: whatever pieces it comes in, noVNC gets every byte but the answers to the page's own fences.

import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../lib/service.mjs';

const { Wire } = await import(path.join(ROOT, 'manager/web/pages/wire.js'));

const u16 = (n) => [(n >> 8) & 255, n & 255];
const u32 = (n) => [...u16(n >>> 16), ...u16(n & 0xffff)];
const rect = (width, height, encoding, content, x = 0, y = 0) => [x, y, width, height].flatMap(u16).concat(u32(encoding), content);
const update = (...rects) => [0, 0, ...u16(rects.length), ...rects.flat()];
const bytes = (n, value = 248) => Array(n).fill(value); // as if it were full of fences
const fence = (flags, payload) => [248, 0, 0, 0, ...u32(flags), payload.length, ...payload];

const HELLO = [...Buffer.from('RFB 003.008\n'), 1, 1, ...u32(0), ...u16(800), ...u16(600), ...bytes(16), ...u32(5), ...bytes(5)];
const REQUEST = 0x80000001;

const CONVERSATION = [
  HELLO,
  [150],
  update(
    rect(800, 600, -308, [1, 0, 0, 0, ...u32(7), ...u16(0), ...u16(0), ...u16(800), ...u16(600), ...u32(9)], 1, 2),
    rect(0, 0, -258, []),
    rect(4, 3, 0x574d5664, [1, 0, ...bytes(4 * 3 * 4)]),
    rect(4, 3, 0x574d5664, [0, 0, ...bytes(4 * 3 * 8)]),
    rect(9, 3, -239, bytes(9 * 3 * 4 + 2 * 3)),
    rect(0, 0, -261, [4]),
    rect(0, 0, -307, [...u32(3), ...bytes(3)]),
  ),
  fence(REQUEST, [0, 0, 0, 1]),
  update(rect(5, 2, 0, bytes(40)), rect(10, 10, 1, bytes(4)), rect(6, 6, 16, [...u32(50), ...bytes(50)])),
  fence(1, [121, 117, 110, 106, 0, 0, 0, 1]), // ours
  update(
    rect(64, 64, 7, [0x80, ...bytes(3)]), // one colour
    rect(64, 64, 7, [0x90, 0xc8, 0x02, ...bytes(0x148)]), // JPEG of two bytes' length
    rect(64, 64, 7, [0x00, 0x80, 0x81, 0x01, ...bytes(0x4080)]), // colours as they are, of three bytes' length
    rect(2, 2, 7, [0x10, 12, ...bytes(12)]), // exactly twelve bytes: with a length
    rect(1, 3, 7, [0x20, ...bytes(9)]), // fewer: without
    rect(30, 4, 7, [0x50, 1, 1, ...bytes(6), 5, ...bytes(5)]), // two colours, 16 bytes of bits
    rect(30, 2, 7, [0x50, 1, 1, ...bytes(6), ...bytes(8)]), // two colours, few bits
    rect(30, 4, 7, [0x60, 1, 9, ...bytes(30), 90, ...bytes(90)]), // ten colours
  ),
  [2],
  [3, 0, 0, 0, ...u32(4), ...bytes(4)],
  [3, 0, 0, 0, ...u32(-6), ...bytes(6)],
  fence(0x80000003, []),
  fence(1, []), // an answer without content is ours too
  [0, 0, 255, 255, ...rect(100, 50, 50, [...u32(200), ...u32(1), ...bytes(200)]), ...rect(0, 0, -224, [])],
  fence(REQUEST, [0, 0, 0, 2]),
];
const OURS = new Set([5, 11]);
const ALL = CONVERSATION.flat();
const PASSES = CONVERSATION.filter((_, place) => !OURS.has(place)).flat();

/** Reads the conversation in pieces as `length` says; what comes out and what is told. */
function read(all, length) {
  const told = { rects: [], updates: 0, sizes: [], fences: [], ready: 0 };
  const wire = new Wire({
    ready: () => (told.ready += 1),
    rect: (...what) => told.rects.push(what),
    update: () => (told.updates += 1),
    size: (size) => told.sizes.push(size),
    fence: (payload) => told.fences.push([...payload]),
  });
  const out = [];
  for (let at = 0; at < all.length; ) {
    const piece = Uint8Array.from(all.slice(at, at + Math.max(1, length())));
    at += piece.length;
    for (const passed of wire.push(piece)) out.push(...passed);
  }
  return { out, told, wire };
}

test('all that the proxy says is read, in whatever pieces', () => {
  let seed = 7;
  const random = (most) => () => ((seed = (seed * 1103515245 + 12345) & 0x7fffffff) >> 8) % most;
  for (const length of [() => ALL.length, () => 1, () => 2, ...[5, 40, 300, 3000].map(random)]) {
    const { out, told, wire } = read(ALL, length);
    assert.equal(wire.lost, false);
    assert.deepEqual(out, PASSES);
    assert.equal(told.ready, 1);
    assert.equal(told.updates, 3);
    assert.deepEqual(told.sizes, [{ width: 800, height: 600, reason: 1, status: 2, screen: 7, flags: 9 }]);
    assert.deepEqual(told.fences, [[121, 117, 110, 106, 0, 0, 0, 1], []]);
    const kinds = told.rects.map(([codec]) => codec);
    assert.deepEqual(kinds, ['lossless', 'copy', 'lossless', 'lossless', 'jpeg', ...Array(6).fill('lossless'), 'h264']);
    assert.deepEqual(told.rects.at(-1), ['h264', 5000, 12 + 8 + 200]);
    assert.deepEqual(told.rects[4], ['jpeg', 4096, 12 + 3 + 0x148]);
  }
});

test('what is not understood passes unread from there on', () => {
  for (const strange of [[99], update(rect(5, 5, 21, bytes(20))), update(rect(5, 5, 7, [0xa0]))]) {
    const tail = [...strange, ...fence(1, [1]), ...bytes(50)];
    const { out, wire } = read([...HELLO, ...tail], () => 3);
    assert.equal(wire.lost, true);
    assert.deepEqual(out, [...HELLO, ...tail]);
  }
});
