// How the stream is doing, as far as it can be seen from here.

import { part } from "./api.js";
import { shown } from "./display.js";
import { make } from "./dom.js";
import { session } from "./session.js";
import { settings } from "./settings.js";
import { t } from "./text.js";
import { CODECS } from "./wire.js";

/** The mix of codecs is that of so many seconds. */
const SECONDS = 5;

const CALLED = { h264: "H.264", jpeg: "JPEG", lossless: t("Lossless"), copy: t("Copied") };

const overlay = part("statistics");
const samples = []; // one a second: counts and when
let rows;
let timer;

function build() {
  const row = (name, label) => {
    const value = make("dd", { "data-testid": `statistics-${name}` }, "–");
    overlay.querySelector("dl").append(make("dt", {}, label), value);
    return value;
  };
  overlay.append(make("dl"));
  rows = { fps: row("fps", t("Frames")), latency: row("latency", t("Latency")), bandwidth: row("bandwidth", t("Received")), size: row("size", t("Screen")), codecs: row("codecs", t("Sent as")) };
  overlay.append(make("div", { class: "mix", "aria-hidden": true }, CODECS.map((codec) => make("span", { "data-codec": codec }))));
}

const copy = ({ bytes, updates, codecs }) => ({ at: performance.now(), bytes, updates, codecs: new Map(codecs) });

const amount = (bytes) =>
  bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB/s` : bytes >= 1e4 ? `${Math.round(bytes / 1e3)} kB/s` : `${(bytes / 1e3).toFixed(1)} kB/s`;

/** Pixels by codec between two samples, as shares of all. */
function mix(from, to) {
  const pixels = (sample, codec) => sample.codecs.get(codec)?.pixels ?? 0;
  const by = CODECS.map((codec) => [codec, pixels(to, codec) - pixels(from, codec)]);
  const all = by.reduce((sum, [, count]) => sum + count, 0);
  return all ? by.map(([codec, count]) => [codec, count / all]) : [];
}

function sample() {
  const { link } = session;
  if (!link) {
    samples.length = 0;
    for (const value of Object.values(rows)) value.textContent = "–";
    return;
  }
  samples.push(copy(link.counts));
  if (samples.length > SECONDS + 1) samples.shift();
  const [first, before, now] = [samples[0], samples.at(-2), samples.at(-1)];
  if (before) {
    const seconds = (now.at - before.at) / 1000;
    rows.fps.textContent = t("{count} a second", { count: Math.round((now.updates - before.updates) / seconds) });
    rows.bandwidth.textContent = amount((now.bytes - before.bytes) / seconds);
    const shares = mix(first, now);
    const told = shares.filter(([, share]) => share >= 0.005).map(([codec, share]) => `${CALLED[codec]} ${Math.round(share * 100)}%`);
    rows.codecs.textContent = told.join(" · ") || t("nothing");
    for (const bar of overlay.querySelectorAll("[data-codec]")) {
      const [, share] = shares.find(([codec]) => codec === bar.dataset.codec) ?? [];
      bar.style.flexGrow = share ?? 0;
    }
  }
  const trips = [...link.trips].slice(-5).sort((a, b) => a - b);
  if (trips.length) rows.latency.textContent = `${trips[trips.length >> 1].toFixed(trips[0] < 10 ? 1 : 0)} ms`;
  const screen = shown();
  if (screen) rows.size.textContent = `${screen.width} × ${screen.height} · ${Math.round(screen.scale * 100)}%`;
}

function switchTo(on) {
  overlay.hidden = !on;
  clearInterval(timer);
  samples.length = 0;
  if (!on) return;
  if (!rows) build();
  sample();
  timer = setInterval(sample, 1000);
}

session.addEventListener("disconnect", () => (samples.length = 0));
settings.on("statistics", switchTo);
switchTo(settings.statistics);
