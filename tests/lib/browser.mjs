// A person at a browser: logs in, opens a desktop, looks, moves, types.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

/** Where screenshots are kept. */
export const ARTEFACTS = fileURLToPath(new URL('../artefacts/', import.meta.url));

const FLAGS = [
  '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--no-sandbox',
];

/** Starts a browser that ends with the test, with more flags if there are some. */
export async function launch(test, more = []) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: [...FLAGS, ...more] });
  test.after(() => browser.close());
  return browser;
}

/** Waits until `condition` returns something true, and returns it. */
export async function until(what, condition, patience = 60_000) {
  const end = Date.now() + patience;
  let last;
  while (Date.now() < end) {
    try {
      const value = await condition();
      if (value) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    await sleep(Math.min(200, patience / 50));
  }
  throw new Error(`waited ${patience / 1000} s for ${what}; last: ${last}`);
}

/** A page of one person. */
export class Person {
  /** `more` is for the browser: `deviceScaleFactor`, `hasTouch`, `locale`, `colorScheme`, … */
  static async arrive(browser, url, { width = 1280, height = 860, patience = 60_000, ...more } = {}) {
    const context = await browser.newContext({ viewport: { width, height }, ...more });
    const page = await context.newPage();
    page.setDefaultTimeout(patience);
    const person = new Person(page, url, patience);
    page.on('pageerror', (error) => person.errors.push(String(error)));
    page.on('console', (message) => /Content Security Policy/i.test(message.text()) && person.errors.push(message.text()));
    await page.goto(url);
    return person;
  }

  constructor(page, url, patience) {
    Object.assign(this, { page, url, patience, errors: [] });
  }

  /** Where the desktop is: a frame of the page, or the page itself. */
  get view() {
    return this.frame && !this.frame.isDetached() ? this.frame : this.page;
  }

  part(name) {
    return this.view.getByTestId(name);
  }

  /** Logs in with the one-time password and chooses another. */
  async logInFirst(name, oneTime, chosen) {
    await this.logIn(name, oneTime);
    await this.part('password-form').waitFor();
    await this.part('password-new').fill(chosen);
    await this.part('password-again').fill(chosen);
    await this.part('password-submit').click();
    await this.part('user-name').waitFor();
  }

  async logIn(name, password) {
    await this.part('login-name').fill(name);
    await this.part('login-password').fill(password);
    await this.part('login-submit').click();
  }

  /** Opens the menu of the account. */
  async accountMenu() {
    if (!(await this.part('logout').isVisible())) await this.part('account-menu').click();
  }

  async logOut() {
    await this.accountMenu();
    await this.part('logout').click();
    await this.part('login-form').waitFor();
  }

  card(name) {
    return this.page.locator(`[data-testid="desktop-card"][data-name="${name}"]`);
  }

  /** Brings the toolbar of a desktop up. */
  async toolbar() {
    const { width } = this.page.viewportSize();
    await this.page.mouse.move(width / 2, 2); // on its handle it stays
    await this.view.locator('[data-testid="toolbar"][data-quiet="false"]').waitFor();
  }

  /** Presses a button of the toolbar; opens its panel, if it has one and that is closed. */
  async tool(name) {
    await this.toolbar();
    const button = this.part(`toolbar-${name}`);
    if ((await button.getAttribute('aria-expanded')) !== 'true') await button.click();
  }

  /** Presses something in a panel of the toolbar. */
  async choose(tool, name) {
    await this.tool(tool);
    await this.part(name).click();
  }

  /** Closes what is open in the toolbar and lets the desktop have the keyboard. */
  async leaveToolbar() {
    for (let n = 0; n < 2; n += 1) if (await this.view.evaluate(() => document.activeElement?.closest('[data-testid="toolbar"]') !== null)) await this.page.keyboard.press('Escape');
  }

  /** The desktop keeps its size from now on and is scaled into the window. */
  async scaled() {
    await this.choose('display', 'size-fit');
    await this.leaveToolbar();
  }

  /** Opens a desktop in this tab, without the portal's frame around it, and waits for its picture. */
  async open(name) {
    await this.card(name).getByTestId('desktop-open').waitFor();
    await this.visit(name);
    await this.connected();
  }

  /** Opens a desktop as people do: in the portal's frame. */
  async openFramed(name) {
    await this.card(name).getByTestId('desktop-open').click();
    const element = await this.page.getByTestId('frame').elementHandle();
    this.frame = await element.contentFrame();
    await this.connected();
  }

  /** Goes to a desktop's own page, whatever that shows. */
  async visit(name) {
    await this.page.goto(`${this.url}/desktops/${name}#tab`, { waitUntil: 'commit' });
    await this.page.waitForURL(/\.desk\./, { waitUntil: 'commit' });
  }

  /** Waits until the page of a desktop says that it is in this state. The toolbar, where it says so, may be out of sight. */
  async state(name) {
    await this.view.locator(`[data-testid="connection-state"][data-state="${name}"]`).waitFor({ state: 'attached' });
  }

  /** All states that the page of a desktop is in from now on, to be asked for later. */
  async states() {
    await this.page.evaluate(async () => {
      const { session } = await import('/assets/session.js');
      window.states = [];
      session.addEventListener('state', () => window.states.push(session.state));
    });
    return () => this.page.evaluate(() => window.states);
  }

  async connected() {
    await this.state('connected');
    await until('the picture', async () => (await this.size()).width > 0, this.patience);
  }

  get canvas() {
    return this.view.locator('[data-testid="desktop-screen"] canvas');
  }

  /** The picture's size in its own pixels. */
  size() {
    return this.canvas.evaluate(({ width, height }) => ({ width, height }));
  }

  /** Waits until the guest has taken the size of the window. */
  async fitted() {
    const stage = await this.part('desktop-screen').boundingBox();
    await until('the size of the window', async () => {
      const { width, height } = await this.size();
      return Math.abs(width - stage.width) <= 1 && Math.abs(height - stage.height) <= 1;
    }, this.patience);
  }

  /** Pixels of the picture as `[r, g, b]` for each `[x, y]`. */
  pixels(points) {
    return this.canvas.evaluate((canvas, list) => {
      const context = canvas.getContext('2d');
      return list.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data].slice(0, 3));
    }, points);
  }

  /** All pixels of a rectangle of the picture, four bytes each. */
  async rectangle(x, y, width, height) {
    const text = await this.canvas.evaluate((canvas, [left, top, w, h]) => {
      const bytes = canvas.getContext('2d').getImageData(left, top, w, h).data;
      let binary = '';
      for (let i = 0; i < bytes.length; i += 32768) binary += String.fromCharCode(...bytes.subarray(i, i + 32768));
      return btoa(binary);
    }, [x, y, width, height]);
    return Buffer.from(text, 'base64');
  }

  /** Where a pixel of the picture is in the page. */
  async place(x, y) {
    const box = await this.canvas.boundingBox();
    const { width, height } = await this.size();
    return [box.x + ((x + 0.5) * box.width) / width, box.y + ((y + 0.5) * box.height) / height];
  }

  async move(x, y) {
    await this.page.mouse.move(...(await this.place(x, y)));
  }

  async click(x, y, options) {
    await this.page.mouse.click(...(await this.place(x, y)), { delay: 60, ...options });
  }

  /** Types on a US keyboard with a pause between keys, as fingers do, shift included. */
  async type(text, delay = 40) {
    for (const character of text) {
      const shifted = /[A-Z~!@#$%^&*()_+{}|:"<>?]/.test(character);
      if (shifted) await this.page.keyboard.down('Shift');
      await this.page.keyboard.press(character === '\n' ? 'Enter' : character, { delay });
      if (shifted) await this.page.keyboard.up('Shift');
    }
  }

  /** Keeps a screenshot of the page. */
  async keep(name) {
    await mkdir(ARTEFACTS, { recursive: true });
    await this.page.screenshot({ path: path.join(ARTEFACTS, `${name}.png`) });
  }

  /** Keeps the desktop's own picture and returns it. */
  async picture(name) {
    const url = await this.canvas.evaluate((canvas) => canvas.toDataURL('image/png'));
    const bytes = Buffer.from(url.slice(url.indexOf(',') + 1), 'base64');
    await mkdir(ARTEFACTS, { recursive: true });
    await writeFile(path.join(ARTEFACTS, `${name}.png`), bytes);
    return bytes;
  }
}

/** A folder that goes with the test, after `before` has ended what uses it. */
export async function scratch(test, before = () => {}) {
  const folder = await mkdtemp(path.join(tmpdir(), 'yunju-'));
  test.after(async () => {
    await before();
    await rm(folder, { recursive: true, force: true });
  });
  return folder;
}
