// A stand-in for the agent in a guest: speaks the frames of protocol/src/seat.rs with a desktop's proxy.

import { connect } from 'node:net';
import path from 'node:path';
import { until } from './browser.mjs';

const line = (head) => Buffer.from(`${JSON.stringify(head)}\n`);

export class Agent {
  /** Connects to the proxy of a running desktop as its guest would, and says hello. */
  static async of(test, service, name) {
    const { id } = JSON.parse(await service.yunju('show', name, '-o', 'json'));
    const agent = new Agent(path.join(service.data, 'desktops', id, 'run/guest/vsock_1078'));
    test.after(() => agent.socket.destroy());
    agent.say({ type: 'hello', version: 'test', clipboard: true, text: true });
    return agent;
  }

  constructor(file) {
    this.heard = [];
    this.received = Buffer.alloc(0);
    this.socket = connect(file).on('error', () => {}).on('data', (bytes) => this.hear(bytes));
  }

  say(head, bytes = Buffer.alloc(0)) {
    this.socket.write(Buffer.concat([line(bytes.length ? { ...head, length: bytes.length } : head), bytes]));
  }

  hear(bytes) {
    this.received = Buffer.concat([this.received, bytes]);
    for (;;) {
      const end = this.received.indexOf(10);
      if (end < 0) return;
      const head = JSON.parse(this.received.subarray(0, end));
      const past = end + 1 + (head.length ?? 0);
      if (this.received.length < past) return;
      this.heard.push({ ...head, bytes: Buffer.from(this.received.subarray(end + 1, past)) });
      this.received = this.received.subarray(past);
      if (head.type === 'clip') this.say({ type: 'taken' });
      if (head.type === 'type' && !this.slow) this.say({ type: 'typed' });
    }
  }

  /** What it has been told of this type: all, once the last of it is as it should be. */
  told(type, last) {
    return until(`the agent being told a ${type}`, () => {
      const all = this.heard.filter((frame) => frame.type === type);
      return all.length && last(all.at(-1)) && all;
    });
  }
}
