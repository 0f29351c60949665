// What can be seen of a page without eyes: axe-core's rules, of which none of weight may be broken.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

/** Fails if the page breaks a rule seriously; `where` names it. */
export async function accessible(person, where) {
  const present = await person.page.evaluate(() => typeof window.axe);
  // not as an element of the page: its content policy forbids that
  if (present === 'undefined') await person.page.evaluate(await readFile(AXE, 'utf8'));
  const { violations } = await person.page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const grave = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  const told = grave.map(({ id, help, nodes }) => `${id}: ${help}\n    ${nodes.slice(0, 4).map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary.split('\n')[1] ?? ''}`).join('\n    ')}`);
  assert.deepEqual(told, [], where);
}
