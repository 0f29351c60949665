// The service in the nested lab, where stock guests run, seen from outside.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { until } from './browser.mjs';
import { BINARIES, IMAGES, ROOT, freePort } from './service.mjs';

const DATA = '/data/yunju';

/** A lab with `yunju serve` in it, ended with the test. Commands go to a shell inside. */
export class Lab {
  static async start(test, options = {}) {
    const lab = new Lab(await freePort(), options);
    test.after(() => lab.end());
    await lab.boot();
    return lab;
  }

  /** `prepare` is a command that runs before the service, `images` the folder of its images, `flags` are more of its flags: images are not warmed beside a test. */
  constructor(port, { prepare = 'true', images = IMAGES, flags = '--no-warm' }) {
    Object.assign(this, { port, prepare, images, flags, url: `http://localhost:${port}`, waiting: new Map() });
  }

  async boot() {
    const flags = ['run', '--forward', `${this.port}:8080`, '--', 'bash'];
    this.process = spawn(path.join(ROOT, 'ci/lab'), flags, { cwd: ROOT, stdio: ['pipe', 'pipe', 'inherit'] });
    this.ended = new Promise((resolve) => this.process.once('exit', resolve));
    createInterface({ input: this.process.stdout }).on('line', (line) => this.hear(line));
    const serve = `yunju serve --data ${DATA} --listen 0.0.0.0:8080 --images ${this.images} --stop-machines ${this.flags}`;
    await this.run(`export PATH=${BINARIES}:$PATH YUNJU_DATA=${DATA}; mkdir -p ${DATA}; ${this.prepare}`);
    await this.run(`${serve} >&2 &`);
    await until('the service in the lab', () => this.run('yunju ls'), 60_000);
  }

  /** Runs a command inside and returns what it prints; throws when it fails. */
  async run(command, patience = 120_000) {
    const id = randomUUID();
    const answer = new Promise((resolve) => this.waiting.set(id, { lines: [], resolve }));
    this.current = id;
    this.process.stdin.write(`{ ${command}\n} < /dev/null; status=$?; echo; echo "${id} $status"\n`);
    const late = new Promise((resolve) => setTimeout(resolve, patience, undefined).unref());
    const over = await Promise.race([answer, late, this.ended.then(() => undefined)]);
    this.waiting.delete(id);
    if (!over) throw new Error(`no end of \`${command}\` in the lab within ${patience / 1000} s`);
    if (over.status !== 0) throw new Error(`\`${command}\` in the lab: exit code ${over.status}\n${over.text}`);
    return over.text;
  }

  yunju(...words) {
    const seconds = Number(words[words.indexOf('--timeout') + 1]) || 0;
    const quoted = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`);
    return this.run(`yunju ${quoted.join(' ')}`, 120_000 + seconds * 1000);
  }

  /** Runs a command in the guest by its serial console. */
  guest(desktop, command, seconds = 60) {
    return this.yunju('console', desktop, '--timeout', String(seconds), '--exec', command);
  }

  hear(line) {
    const [id, status] = line.split(' ');
    const over = this.waiting.get(id);
    if (over) {
      this.waiting.delete(id);
      over.resolve({ text: over.lines.join('\n').trim(), status: Number(status) });
    } else {
      this.waiting.get(this.current)?.lines.push(line);
    }
  }

  async end() {
    this.process.stdin.end('kill %1; wait\n');
    setTimeout(() => this.process.kill('SIGTERM'), 60_000).unref();
    await this.ended;
  }
}
