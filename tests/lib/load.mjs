// The first load of the portal by somebody who is logged in, with nothing in the browser's cache: what goes over the wire and how
// long it takes.

/** `cookies` are those of somebody who is logged in; `desktop` is one that runs, whose picture is waited for. */
export async function firstLoad(browser, url, cookies, desktop, options = {}) {
  const context = await browser.newContext(options);
  try {
    await context.addCookies(cookies);
    const page = await context.newPage();
    const wire = await context.newCDPSession(page);
    await wire.send('Network.enable');
    const [urls, sizes] = [new Map(), new Map()];
    wire.on('Network.responseReceived', ({ requestId, response }) => urls.set(requestId, response.url));
    wire.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => sizes.set(requestId, encodedDataLength));
    await page.goto(url, { waitUntil: 'commit' });
    await page.waitForFunction((name) => document.querySelector(`[data-name="${name}"] [data-testid="desktop-open"]`)?.checkVisibility(), desktop);
    const interactive = await page.evaluate(() => performance.now());
    await page.waitForFunction((name) => document.querySelector(`[data-name="${name}"] [data-testid="desktop-picture"]`)?.checkVisibility(), desktop);
    const heaviest = [...sizes].map(([id, bytes]) => [urls.get(id), bytes]).sort(([, a], [, b]) => b - a);
    return { bytes: heaviest.reduce((sum, [, bytes]) => sum + bytes, 0), requests: sizes.size, interactive, heaviest };
  } finally {
    await context.close();
  }
}
