// Which layout a keyboard has, by what is on some of its keys, or by the browser's language: names are xkb's.

// [layout, variant], then what must be on which keys
const SIGNS = [
  [["us", "dvorak"], { KeyQ: "'", KeyS: "o" }],
  [["us", "colemak"], { KeyE: "f", KeyS: "r" }],
  [["be"], { KeyQ: "a", Minus: ")", Equal: "-" }],
  [["fr"], { KeyQ: "a", KeyW: "z" }],
  [["ch", "fr"], { KeyY: "z", BracketLeft: "è" }],
  [["ch"], { KeyY: "z", BracketLeft: "ü", Minus: "'" }],
  [["hu"], { KeyY: "z", Semicolon: "é" }],
  [["cz"], { Digit2: "ě", Digit4: "č" }],
  [["sk"], { Digit2: "ľ" }],
  [["de"], { KeyY: "z", BracketLeft: "ü" }],
  [["si"], { KeyY: "z", Semicolon: "č" }],
  [["it"], { Semicolon: "ò", BracketLeft: "è" }],
  [["latam"], { Semicolon: "ñ", Quote: "{" }],
  [["es"], { Semicolon: "ñ" }],
  [["br"], { Semicolon: "ç", BracketRight: "[" }],
  [["pt"], { Semicolon: "ç" }],
  [["dk"], { Semicolon: "æ", Quote: "ø" }],
  [["no"], { Semicolon: "ø", Quote: "æ" }],
  [["se"], { Semicolon: "ö", Quote: "ä", BracketLeft: "å" }],
  [["tr"], { KeyI: "ı" }],
  [["jp"], { BracketLeft: "@", BracketRight: "[" }],
  [["gb"], { Backslash: "#", IntlBackslash: "\\" }],
  [["ua"], { KeyS: "і", KeyQ: "й" }],
  [["ru"], { KeyQ: "й" }],
  [["gr"], { KeyE: "ε" }],
  [["us"], { KeyQ: "q", KeyY: "y", Semicolon: ";" }],
];

const LANGUAGES = {
  "de-ch": "ch", "en-gb": "gb", "fr-be": "be", "fr-ca": "ca", "pt-br": "br", "nl-be": "be",
  cs: "cz", da: "dk", de: "de", el: "gr", es: "es", fi: "fi", fr: "fr", hu: "hu", it: "it", ja: "jp", nb: "no", no: "no",
  pl: "pl", pt: "pt", ru: "ru", sk: "sk", sl: "si", sv: "se", tr: "tr", uk: "ua",
};

/** Those that can be chosen by hand, with their names. */
export const NAMES = {
  us: "English (US)", gb: "English (UK)", de: "Deutsch", ch: "Schweiz", fr: "Français", be: "België", ca: "Canada", es: "Español", latam: "Latinoamérica",
  it: "Italiano", pt: "Português", br: "Brasil", dk: "Dansk", no: "Norsk", se: "Svenska", fi: "Suomi", pl: "Polski", cz: "Čeština", sk: "Slovenčina",
  si: "Slovenščina", hu: "Magyar", tr: "Türkçe", ru: "Русский", ua: "Українська", gr: "Ελληνικά", jp: "日本語",
};

/** By what is on the keys: `on` is a map from their codes; null if it is none of those known. */
export function byKeys(on) {
  const found = SIGNS.find(([, signs]) => Object.entries(signs).every(([code, symbol]) => on.get(code) === symbol));
  return found ? { layout: found[0][0], variant: found[0][1] ?? "" } : null;
}

/** By a language such as `de-AT`. */
export function byLanguage(tag) {
  const lower = tag.toLowerCase();
  return { layout: LANGUAGES[lower] ?? LANGUAGES[lower.split("-")[0]] ?? "us", variant: "" };
}

/** What this browser's keyboard is taken for. */
export async function guess() {
  const map = await navigator.keyboard?.getLayoutMap?.().catch(() => null);
  return (map?.size && byKeys(map)) || byLanguage(navigator.language);
}
