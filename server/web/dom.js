// Builds elements, and brings a page from one state to the next without losing focus or scroll.
// What comes from the server enters as text nodes and attribute values alone; nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** Makes an HTML element; children are nodes or text. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** Makes an SVG element. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
const alike = (old, fresh) => old.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh);

/** Makes the children of `parent` like `fresh`, and keeps every element that only changes. Keys are in `data-key`. */
export function patch(parent, fresh) {
  fresh = fresh.flat(Infinity).filter((node) => node instanceof Node);
  const wanted = new Set(fresh.map(keyOf).filter((key) => key !== null));
  const keyed = new Map();
  for (const old of [...parent.childNodes]) {
    const key = keyOf(old);
    if (key !== null && !wanted.has(key)) old.remove();
    else if (key !== null) keyed.set(key, old);
  }
  let at = parent.firstChild;
  for (const node of fresh) {
    const key = keyOf(node);
    const old = key === null ? at : keyed.get(key);
    if (!old || !alike(old, node)) {
      parent.insertBefore(node, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else parent.insertBefore(old, at);
    update(old, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function update(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // What the reader opened stays open.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  patch(old, [...fresh.childNodes]);
}
