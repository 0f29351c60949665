// The service, run here, and its command line.

import { execFile, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { scratch, until } from './browser.mjs';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const BINARIES = process.env.YUNJU_BINARIES ?? path.join(ROOT, 'target/release');
export const IMAGES = path.join(process.env.YUNJU_CACHE ?? path.join(process.env.HOME, '.cache/yunju'), 'images');

const run = promisify(execFile);

/** A port that nobody listens on. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** `yunju serve` in a folder of its own, ended with the test. */
export class Service {
  static async start(test, options = []) {
    const service = new Service(await scratch(test, () => service.end()), await freePort(), options);
    await service.serve();
    return service;
  }

  constructor(data, port, options) {
    Object.assign(this, { data, port, options, url: `http://localhost:${port}` });
  }

  async serve() {
    const flags = ['serve', '--data', this.data, '--listen', `127.0.0.1:${this.port}`, '--images', IMAGES, ...this.options];
    this.process = spawn(path.join(BINARIES, 'yunju'), flags, { stdio: ['ignore', 'inherit', 'inherit'] });
    this.ended = new Promise((resolve) => this.process.once('exit', resolve));
    await until('the service', () => this.yunju('ls'));
  }

  /** Runs the command line and returns what it prints. */
  async yunju(...words) {
    const { stdout } = await run(path.join(BINARIES, 'yunju'), ['--data', this.data, ...words], { maxBuffer: 64 << 20 });
    return stdout;
  }

  /** Asks the API at its local socket, as somebody who may do everything. */
  ask(method, path, body) {
    return new Promise((resolve, reject) => {
      const asked = request({ socketPath: `${this.data}/yunju.sock`, method, path, headers: body ? { 'content-type': 'application/json' } : {} }, async (answer) => {
        let text = '';
        for await (const piece of answer) text += piece;
        if (answer.statusCode >= 400) reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
        else resolve(text ? JSON.parse(text) : undefined);
      });
      asked.once('error', reject);
      asked.end(body && JSON.stringify(body));
    });
  }

  async end(signal = 'SIGTERM') {
    this.process?.kill(signal);
    await this.ended;
  }

  /** The process ids of a running desktop's programs by name. */
  async processes(name) {
    const { id } = JSON.parse(await this.yunju('show', name, '-o', 'json'));
    const folder = path.join(this.data, 'desktops', id, 'run');
    return JSON.parse(await readFile(path.join(folder, 'processes.json'), 'utf8'));
  }
}
