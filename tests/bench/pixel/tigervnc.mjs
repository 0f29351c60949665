// The peer: Xvnc with a client that paints a patch at each key, and noVNC over a websocket to it.

import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ROOT, freePort } from '../../lib/service.mjs';

const NOVNC = path.join(ROOT, 'manager/web/node_modules/@novnc/novnc');
const PAGE = `<!doctype html><title>TigerVNC</title><style>body { margin: 0 } #screen { height: 100vh }</style>
<div id="screen"></div>
<script type="module">
import RFB from '/novnc/core/rfb.js';
const rfb = new RFB(document.getElementById('screen'), 'ws://' + location.host + '/socket', { shared: true });
rfb.addEventListener('connect', () => { document.title = 'connected'; rfb.focus(); });
</script>`;

/** Starts all of it, ended with `test`; returns what it is called and the page's address. */
export async function start(test, { width, height }) {
  const version = execFileSync('/bin/sh', ['-c', 'Xvnc -version 2>&1']).toString().match(/TigerVNC (\S+)/)?.[1];
  if (!version) throw new Error('Xvnc is not TigerVNC\'s: run `ci/setup test`');
  const rfb = await freePort();
  const flags = ['-displayfd', '3', '-geometry', `${width}x${height}`, '-depth', '24', '-ac', '-SecurityTypes', 'None',
    '-interface', '127.0.0.1', '-rfbport', String(rfb)];
  const server = spawn('Xvnc', flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
  test.after(() => server.kill());
  const display = (await firstLine(server.stdio[3], 'Xvnc')).trim();
  const patch = fileURLToPath(new URL('patch.py', import.meta.url));
  const environment = { ...process.env, DISPLAY: `:${display}` };
  const client = spawn('python3', ['-B', patch], { env: environment, stdio: ['ignore', 'pipe', 'inherit'] });
  test.after(() => client.kill());
  await firstLine(client.stdout, 'the X client');
  const web = createServer(file).on('upgrade', (request, socket) => bridge(request, socket, rfb));
  await new Promise((resolve) => web.listen(0, '127.0.0.1', resolve));
  test.after(() => {
    web.close();
    web.closeAllConnections();
  });
  return { name: `TigerVNC ${version}, noVNC`, url: `http://127.0.0.1:${web.address().port}/` };
}

async function firstLine(stream, what) {
  for await (const line of createInterface({ input: stream })) return line;
  throw new Error(`${what} ended before it was ready`);
}

function file({ url }, response) {
  if (!url.startsWith('/novnc/')) {
    response.setHeader('content-type', 'text/html').end(PAGE);
    return;
  }
  response.setHeader('content-type', 'text/javascript');
  const found = path.join(NOVNC, path.normalize(url.slice('/novnc'.length)));
  createReadStream(found).on('error', () => response.writeHead(404).end()).pipe(response);
}

/** Passes a websocket's binary messages (RFC 6455) to a port and back. */
function bridge(request, socket, port) {
  const key = request.headers['sec-websocket-key'];
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    + `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
  const rfb = connect({ port, host: '127.0.0.1', noDelay: true });
  socket.setNoDelay(true);
  let pending = Buffer.alloc(0);
  socket.on('data', (data) => {
    pending = Buffer.concat([pending, data]);
    for (let message; (message = unframe(pending)); pending = message.rest) if (message.binary) rfb.write(message.payload);
  });
  rfb.on('data', (data) => socket.write(Buffer.concat([header(data.length), data])));
  for (const [one, other] of [[socket, rfb], [rfb, socket]]) {
    one.on('close', () => other.destroy()).on('error', () => other.destroy());
  }
}

function header(length) {
  if (length < 126) return Buffer.from([0x82, length]);
  const long = Buffer.alloc(length < 65536 ? 4 : 10);
  long.set([0x82, length < 65536 ? 126 : 127]);
  if (length < 65536) long.writeUInt16BE(length, 2);
  else long.writeBigUInt64BE(BigInt(length), 2);
  return long;
}

/** The first message of what a browser sent, if it is complete. Browsers mask, and noVNC's messages are short. */
function unframe(data) {
  if (data.length < 6) return undefined;
  const short = data[1] & 0x7f;
  const start = short < 126 ? 2 : 4;
  const length = short < 126 ? short : data.readUInt16BE(2);
  const end = start + 4 + length;
  if (data.length < end) return undefined;
  const mask = data.subarray(start, start + 4);
  const payload = data.subarray(start + 4, end).map((byte, index) => byte ^ mask[index & 3]);
  return { binary: (data[0] & 0x0f) <= 2, payload, rest: data.subarray(end) };
}
