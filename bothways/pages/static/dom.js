// Elements of the page: HTML and SVG nodes, sections, tables and bars, and controls that are bound to a field of the
// store. Text only ever arrives as text nodes and attributes: a sentence may hold markup.

import { cellAt, clamp, range } from './geometry.js';

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'style') {
      for (const [property, setting] of Object.entries(value)) node.style.setProperty(property, setting);
    } else if (typeof value === 'function') node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  const isThere = (child) => child !== null && child !== undefined && child !== false;
  node.append(...children.flat(Infinity).filter(isThere));
  return node;
}

/** An HTML element. Properties: attributes, a `style` object, and functions as listeners to the event of their name. */
export const el = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);

/** An SVG element, made as `el` makes one. */
export const svg = (tag, properties = {}, ...children) =>
  fill(document.createElementNS('http://www.w3.org/2000/svg', tag), properties, children);

// ---- Parts of a section

export const explanation = (text) => el('p', { class: 'explanation' }, text);

export const section = (id, title, about, ...children) =>
  el('section', { id }, el('h2', {}, title), explanation(about), children);

export const card = (title, ...children) => el('div', { class: 'card' }, el('h3', {}, title), children);

/** The meaning of colours. pairs: [name, colour]. */
export const colourKey = (pairs) =>
  el('p', { class: 'key' }, pairs.map(([name, colour]) => el('span', { style: { '--key': colour } }, name)));

export function table(heads, rows, properties = {}) {
  const cells = (tag, row) => row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : el(tag, {}, cell)));
  return el('div', { class: 'scroll' }, el('table', properties,
    el('thead', {}, el('tr', {}, cells('th', heads))),
    el('tbody', {}, rows.map((row) => el('tr', {}, cells('td', row))))));
}

const bar = (share) => el('span', { class: 'bar', style: { '--share': clamp(share, 0, 1) } });
export const barCell = (share) => el('td', { class: 'wide' }, bar(share));
export const numberCell = (value, digits = 4) => el('td', { class: 'number' }, value.toFixed(digits));

/** A bar for each [name, share]. */
export const barList = (pairs) => el('ul', { class: 'bars' }, pairs.map(([name, share]) =>
  el('li', {}, el('span', { class: 'name', title: name }, name), bar(share), el('span', {}, share.toFixed(3)))));

/** A text for each [name, value]; names in quotes, as a comma may be one. */
export const pairTexts = (pairs, digits = 3) => pairs.map(([name, value]) => `“${name}” ${value.toFixed(digits)}`);

export const stateName = (index) => (index ? `layer ${index}` : 'embeddings');

// ---- Controls

/** A list of options [value, text], of which the store's field is one. */
export function choice(store, field, id, label, options) {
  const select = el('select', { id, change: () => store.set({ [field]: options[select.selectedIndex][0] }) },
    options.map(([value, text]) => el('option', { value }, text)));
  const follow = () => { select.value = String(store.state[field]); };
  follow();
  store.subscribe([field], follow);
  return el('label', { class: 'control' }, el('span', {}, label), select);
}

/** Options 'NAME 1' to 'NAME n' for the values 0 to n - 1. */
export const numberedOptions = (name, n) => range(n).map((index) => [index, `${name} ${index + 1}`]);

export function checkbox(store, field, id, label) {
  const box = el('input', { id, type: 'checkbox', change: () => store.set({ [field]: box.checked }) });
  box.checked = store.state[field];
  return el('label', { class: 'control checkbox' }, box, el('span', {}, label));
}

/** Arrow keys move the focus among the buttons of a container. */
export function moveByArrowKeys(container, buttons) {
  container.addEventListener('keydown', (event) => {
    const move = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (!move || at < 0) return;
    event.preventDefault();
    buttons[clamp(at + move, 0, buttons.length - 1)].focus();
  });
}

/** The cell of a grid (as `cellAt` has it) under the pointer, or null. */
export function cellUnder(event, node, grid) {
  const box = node.getBoundingClientRect();
  return cellAt({ x: event.clientX - box.left, y: event.clientY - box.top }, box, grid);
}
