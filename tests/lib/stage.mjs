// The page of a desktop without a service: our pages from their folder, a real proxy, and a machine that is only a display
// socket (vnc-proxy/examples/fake-machine.rs).

import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { scratch } from './browser.mjs';
import { ROOT, freePort } from './service.mjs';

const PAGES = path.join(ROOT, 'manager/web/pages');
const NOVNC = path.join(ROOT, 'manager/web/node_modules/@novnc/novnc');
const KINDS = { '.js': 'text/javascript', '.css': 'text/css', '.html': 'text/html', '.svg': 'image/svg+xml' };
const DESKTOP = { id: '00000000-0000-4000-8000-000000000001', name: 'stage', state: 'running', image: 'fake', display: true };

/** Runs a program of ours that ends with the test, until it says something on standard error. */
async function run(t, name, ...args) {
  const cargo = ['run', '--quiet', '--locked', '-p', 'yunju-vnc-proxy', ...name, '--', ...args];
  const child = spawn('cargo', cargo, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  t.after(() => child.kill() && ended);
  for await (const line of createInterface({ input: child.stderr })) if (/waiting|listening/.test(line)) break;
  child.stderr.resume();
  return child;
}

/** A desktop's page at `url`; `requests` are those that the machine got. */
export class Stage {
  static async start(t, size = '800x640') {
    const stage = new Stage();
    const [folder, port] = [await scratch(t), await freePort()];
    const display = `unix:${path.join(folder, 'display')}`;
    const machine = await run(t, ['--example', 'fake-machine'], display, size);
    createInterface({ input: machine.stdout }).on('line', (line) => stage.requests.push(JSON.parse(line)));
    const proxy = await run(t, ['--bin', 'yunju-vnc-proxy'], '--no-jail', '--display', display, '--websocket', `tcp:127.0.0.1:${port}`);
    proxy.stdout.resume();
    const web = createServer((request, response) => answer(request.url, response));
    web.on('upgrade', (request, socket) => splice(request, socket, port));
    await new Promise((resolve) => web.listen(0, '127.0.0.1', resolve));
    t.after(() => web.closeAllConnections() ?? web.close());
    stage.url = `http://127.0.0.1:${web.address().port}/desktops/stage`;
    return stage;
  }

  requests = [];

  /** What was asked of the machine last, of one kind. */
  last(kind) {
    return this.requests.findLast((request) => kind in request)?.[kind];
  }
}

async function answer(url, response) {
  const { pathname } = new URL(url, 'http://stage');
  if (pathname.startsWith('/v1/')) {
    const known = pathname === '/v1/desktops/stage';
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(known ? DESKTOP : { code: 'not_found', detail: 'there is only a stage' }));
    return;
  }
  const [, novnc, asset] = /^\/assets\/(novnc\/)?([\w./-]+)$/.exec(path.normalize(pathname)) ?? [];
  const file = asset ? path.join(novnc ? NOVNC : PAGES, asset) : path.join(PAGES, 'desktop.html');
  const content = await readFile(file).catch(() => null);
  response.writeHead(content ? 200 : 404, { 'content-type': KINDS[path.extname(file)] ?? 'application/octet-stream' });
  response.end(content ?? '');
}

/** As the edge does it: `/desktops/stage/ws/audio` is the proxy's `/audio`. */
function splice(request, socket, port) {
  const onward = connect(port, '127.0.0.1', () => {
    const headers = Object.entries(request.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const purpose = request.url.slice(request.url.indexOf('/ws') + 3) || '/';
    onward.write(`GET ${purpose} HTTP/1.1\r\n${headers.join('')}\r\n`);
    socket.pipe(onward).pipe(socket);
  });
  for (const end of [socket, onward]) end.on('error', () => [socket, onward].forEach((each) => each.destroy()));
}
