// The pages' languages: nothing that a person reads is left in the other one.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../lib/service.mjs';

const PAGES = path.join(ROOT, 'manager/web/pages');
const { default: words } = await import(path.join(PAGES, 'words-zh.js'));

/** All files of a kind, by name. */
async function files(kind) {
  const names = (await readdir(PAGES)).filter((name) => name.endsWith(kind));
  return Promise.all(names.map(async (name) => [name, await readFile(path.join(PAGES, name), 'utf8')]));
}

const blanks = (text) => (text.match(/\{\w+\}/g) ?? []).sort();

test('all that the code says has Chinese words', async () => {
  const missing = [];
  for (const [name, text] of await files('.js')) {
    for (const [, said] of text.matchAll(/\bt\(\s*"((?:[^"\\]|\\.)*)"/g)) if (!(said in words)) missing.push(`${name}: ${said}`);
    assert.doesNotMatch(text, /\bt\(\s*[`']/, `${name}: what t() is given can be found only between double quotes`);
  }
  assert.deepEqual(missing, []);
});

test('all that stands in the pages has Chinese words', async () => {
  const missing = [];
  for (const [name, html] of await files('.html')) {
    const body = html.replace(/<svg.*?<\/svg>/gs, '');
    const texts = [...body.matchAll(/>([^<>]+)</g)].map(([, text]) => text.trim());
    const attributes = [...body.matchAll(/\s(?:title|placeholder|aria-label|alt)="([^"]+)"/g)].map(([, text]) => text);
    for (const text of [...texts, ...attributes]) if (/[a-z]/i.test(text) && !(text in words)) missing.push(`${name}: ${text}`);
  }
  assert.deepEqual(missing, []);
});

test('Chinese sentences have the same blanks as the English ones', () => {
  for (const [english, chinese] of Object.entries(words)) assert.deepEqual(blanks(chinese), blanks(english), english);
});
