// What the pages say, in English or in Chinese. English words are in the code and in the pages; `words-zh.js` has what
// stands for them. A page is put into its language once, when it is loaded.

import "./theme.js";
import { keep, kept } from "./portal.js";

const KEPT = "yunju.language";

export const LANGUAGES = { en: "English", zh: "简体中文" };

/** The language that was chosen, else the first of the browser's that there is. */
function choose() {
  const wanted = [kept(KEPT), ...navigator.languages].filter(Boolean);
  return wanted.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => tag in LANGUAGES) ?? "en";
}

export const language = choose();
const words = language === "zh" ? (await import("./words-zh.js")).default : {};

/** How times and numbers are written. */
export const locale = { en: "en", zh: "zh-CN" }[language];

/** Shows all pages in another language from now on. */
export function speak(tag) {
  keep(KEPT, tag);
  location.reload();
}

/** A sentence in the page's language; `{name}` in it is the value of that name. */
export function t(text, values = {}) {
  const said = words[text] ?? text;
  return said.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

const blank = /\{(\w+)\}/;
let patterns;

/** What is put together already, such as what the service says: as it is if there are no words for it. */
export function told(sentence) {
  if (words[sentence]) return words[sentence];
  patterns ??= Object.keys(words).filter((text) => blank.test(text)).map((text) => {
    const parts = text.split(/\{\w+\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    return { text, names: [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name), pattern: new RegExp(`^${parts.join("(.+?)")}$`, "s") };
  });
  for (const { text, names, pattern } of patterns) {
    const found = pattern.exec(sentence);
    if (found) return t(text, Object.fromEntries(names.map((name, place) => [name, found[place + 1]])));
  }
  return sentence;
}

const SPOKEN = ["title", "placeholder", "aria-label", "alt"];

/** Puts what stands in a page, or in a part of it, into its language. */
export function translate(root) {
  const stays = (node) => node.nodeType === Node.ELEMENT_NODE && node.getAttribute("translate") === "no";
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, (node) => (stays(node) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
  for (let node = walker.currentNode; node; node = walker.nextNode()) {
    if (node.nodeType === Node.TEXT_NODE) {
      const text = node.data.trim();
      if (words[text]) node.data = node.data.replace(text, () => words[text]);
      continue;
    }
    for (const name of SPOKEN) {
      const text = node.getAttribute?.(name);
      if (words[text]) node.setAttribute(name, words[text]);
    }
    if (node.localName === "template") translate(node.content);
  }
}

document.documentElement.lang = locale;
if (language !== "en") translate(document.documentElement);

// A button that speaks the other language.
for (const button of document.querySelectorAll("[data-other-language]")) {
  const other = Object.keys(LANGUAGES).find((tag) => tag !== language);
  button.textContent = LANGUAGES[other];
  button.lang = { en: "en", zh: "zh-CN" }[other];
  button.addEventListener("click", () => speak(other));
}
