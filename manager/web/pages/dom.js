// Elements made in code, as the content policy wants it.

/** An element: attributes by name (`true` is one without a value, or `aria-…="true"`; false, null and an empty text none but for `alt`), `on…` a listener, then what is in it. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, name.startsWith("aria-") ? "true" : "");
    else if (value !== false && value != null && (value !== "" || name === "alt")) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A drawing of lines on 20 × 20, by SVG paths. */
export function drawing(...paths) {
  const svg = document.createElementNS(SVG, "svg");
  const look = { viewBox: "0 0 20 20", fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": true };
  for (const [name, value] of Object.entries(look)) svg.setAttribute(name, value);
  for (const d of paths) svg.appendChild(document.createElementNS(SVG, "path")).setAttribute("d", d);
  return svg;
}
