// What all views stand on: the data, elements, packed arrays, colours, heat maps, and what is chosen.
// The four files are one script, in this order, in one function. Layers, heads and tokens are counted from 0 in values
// and data attributes, layers and heads from 1 in what is read.

const data = JSON.parse(document.getElementById('data').textContent);
const page = document.getElementById('page');
const tokens = data.tokens ?? [];
const runs = data.runs ?? [];
const T = tokens.length;
const MINUS_INFINITY = '−∞';

// ---- Elements. Text only ever arrives as text nodes and attributes: a sentence may hold markup.

function dressed(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'style') for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (typeof value === 'function') node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, props = {}, ...children) => dressed(document.createElement(tag), props, children);
const svg = (tag, props = {}, ...children) =>
  dressed(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);

function section(id, title, explanation) {
  const body = el('section', { id }, el('h2', {}, title), how(explanation));
  page.append(body);
  return body;
}

function choice(id, label, options, value, change) {
  const select = el('select', { id, change: () => change(select.value) });
  select.append(...options.map(([key, text]) => el('option', { value: key }, text)));
  select.value = String(value);
  return el('label', { class: 'control' }, el('span', {}, label), select);
}

function tick(id, label, value, change) {
  const box = el('input', { id, type: 'checkbox', change: () => change(box.checked) });
  box.checked = value;
  return el('label', { class: 'control tick' }, box, el('span', {}, label));
}

function table(heads, rows, props = {}) {
  const cells = (tag, row) => row.map((cell) => (cell instanceof HTMLTableCellElement ? cell : el(tag, {}, cell)));
  return el('div', { class: 'scroll' }, el('table', props,
    el('thead', {}, el('tr', {}, cells('th', heads))),
    el('tbody', {}, rows.map((row) => el('tr', {}, cells('td', row))))));
}

const bar = (share) => el('span', { class: 'bar', style: { '--share': clamp(share, 0, 1) } });
const number = (value, digits = 4) => el('td', { class: 'number' }, value.toFixed(digits));
const bars = (pairs) => el('ul', { class: 'bars' }, pairs.map(([name, share]) =>
  el('li', {}, el('span', { class: 'name', title: name }, name), bar(share), el('span', {}, share.toFixed(3)))));

const how = (text) => el('p', { class: 'how' }, text);
const key = (pairs) => el('p', { class: 'key' }, pairs.map(([name, shade]) => el('span', { style: { '--key': shade } }, name)));
const listed = (pairs, digits = 3) => pairs.map(([name, value]) => `${name} ${value.toFixed(digits)}`);
const wideBar = (share) => el('td', { class: 'wide' }, bar(share));

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const range = (n) => Array.from({ length: n }, (_, index) => index);
const counted = (name, n) => range(n).map((index) => [index, `${name} ${index + 1}`]);
const stateName = (index) => (index ? `layer ${index}` : 'embeddings');

// Slow work that was overtaken by a newer request for the same place must not draw over it.
const turns = {};
function turn(place) {
  const mine = (turns[place] = (turns[place] ?? 0) + 1);
  return () => turns[place] === mine;
}

// ---- Packed arrays

const MOST_NUMBERS_KEPT = 64e6;
const kept = new Map();
let numbersKept = 0;
const numbersIn = (packed) => packed.shape.reduce((product, size) => product * size, 1);

function unpack(packed) {
  const promise = kept.get(packed) ?? decoded(packed);
  if (!kept.delete(packed)) numbersKept += numbersIn(packed);
  kept.set(packed, promise); // again at the end: the map's order is the order of last use
  for (const oldest of kept.keys()) {
    if (numbersKept <= MOST_NUMBERS_KEPT || oldest === packed) break;
    kept.delete(oldest);
    numbersKept -= numbersIn(oldest);
  }
  return promise;
}

async function decoded({ offset, step, data: base64 }) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < bytes.length; index += 1) bytes[index] = text.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const values = new Float32Array(planes.length / 2);
  for (let index = 0; index < values.length; index += 1) {
    values[index] = offset + step * (planes[index] | (planes[values.length + index] << 8));
  }
  return values;
}

// ---- Colours: a sequential scale (square root, so that small weights show) and a signed one

const darkness = matchMedia('(prefers-color-scheme: dark)');
const STOPS = {
  light: { sequential: ['#f3f6fb', '#a3cbe6', '#3a83c0', '#08306b'], signed: ['#8c2d04', '#f5a567', '#f6f6f4', '#86b9de', '#08427f'] },
  dark: { sequential: ['#1a202a', '#1f4f7c', '#4d9fdb', '#e8f5ff'], signed: ['#ffc396', '#a9521b', '#1d2129', '#2b6cab', '#b5dcff'] },
};
let dark = darkness.matches; // read again only on change: reading it just before can swallow the event
const stops = (kind) => STOPS[dark ? 'dark' : 'light'][kind];
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const ramps = new Map();

function ramp(kind) {
  const colours = stops(kind);
  if (!ramps.has(colours)) {
    const parts = colours.map(rgb);
    ramps.set(colours, range(256).map((step) => {
      const place = (step / 255) * (parts.length - 1);
      const left = Math.min(Math.floor(place), parts.length - 2);
      return parts[left].map((one, channel) => Math.round(one + (place - left) * (parts[left + 1][channel] - one)));
    }));
  }
  return ramps.get(colours);
}

function level({ kind, most }, value) {
  const share = value / most;
  return Math.round(255 * (kind === 'signed' ? (clamp(share, -1, 1) + 1) / 2 : Math.sqrt(clamp(share, 0, 1))));
}
const colour = (scale, value) => `rgb(${ramp(scale.kind)[level(scale, value)].join(' ')})`;
const scaleOf = (kind, values) => ({ kind, most: values.reduce((most, one) => Math.max(most, Math.abs(one)), 0) || 1 });

function legend({ kind, most }) {
  const gradient = `linear-gradient(to right, ${kind === 'signed' ? stops(kind).join(', ') : range(9).map((step) =>
    `rgb(${ramp(kind)[level({ kind, most: 8 }, step)].join(' ')})`).join(', ')})`;
  const low = kind === 'signed' ? (-most).toFixed(2) : '0';
  return el('div', { class: 'legend' }, low, el('span', { style: { background: gradient } }), most.toFixed(2));
}

// Where there are more cells than pixels, a pixel shows the largest of its cells: a mean would hide single strong ones.
function paint(canvas, values, rows, columns, scale, shown = () => true, mostPixels = Infinity) {
  const height = Math.min(rows, mostPixels);
  const width = Math.min(columns, mostPixels);
  const peaks = new Float32Array(width * height).fill(NaN);
  for (let row = 0; row < rows; row += 1) {
    const start = Math.floor((row * height) / rows) * width;
    for (let column = 0; column < columns; column += 1) {
      if (!shown(row, column)) continue;
      const at = start + Math.floor((column * width) / columns);
      const value = values[row * columns + column];
      if (!(Math.abs(peaks[at]) >= Math.abs(value))) peaks[at] = value;
    }
  }
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  const colours = ramp(scale.kind);
  peaks.forEach((value, at) => {
    if (!Number.isNaN(value)) image.data.set([...colours[level(scale, value)], 255], at * 4);
  });
  canvas.getContext('2d').putImageData(image, 0, 0);
}

function cellUnder(event, node, rows, columns, margin = 0) {
  const box = node.getBoundingClientRect();
  const size = node.viewBox?.baseVal.width || box.width;
  const place = (offset, total, cells) => Math.floor((((offset * size) / box.width - margin) * cells) / (total - margin));
  const row = place(event.clientY - box.top, (box.height * size) / box.width, rows);
  const column = place(event.clientX - box.left, size, columns);
  return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
}

function heatMap(values, rows, columns, { scale, rowName, columnName, title, square = false }) {
  const wide = clamp(Math.floor(480 / columns), 1, 24);
  const high = square ? wide : clamp(Math.floor(420 / rows), 1, 24);
  const canvas = el('canvas', { class: 'heat', role: 'img', 'aria-label': title,
    style: { width: `${wide * columns}px`, height: `${high * rows}px` } });
  const readout = el('output', { class: 'readout' }, 'Point at a cell to read its number.');
  canvas.addEventListener('pointermove', (event) => {
    const cell = cellUnder(event, canvas, rows, columns);
    if (cell) readout.textContent =
      `${rowName(cell[0])}, ${columnName(cell[1])}: ${values[cell[0] * columns + cell[1]].toFixed(3)}`;
  });
  paint(canvas, values, rows, columns, scale);
  return el('figure', {}, el('figcaption', {}, title), el('div', { class: 'scroll' }, canvas), legend(scale), readout);
}

// ---- What is chosen, shared by the sections

const firstWord = Math.max(0, tokens.findIndex((token) => !token.special));
const state = { run: 0, layer: 0, head: 0, view: 'head', kind: 'weights', words: false, beside: false, pair: 'all', token: firstWord };
const steps = { run: 0, layer: 0, head: 0, token: firstWord };
const picture = { state: null, checkpointLayer: 0, checkpointHead: 0 };
let parts = {}; // elements that change after they were made

function selectToken(index) {
  if (state.token === index) return;
  state.token = index;
  markChips();
  highlight(unitWith(index));
  followInSteps();
}

function arrowKeys(container, buttons) {
  container.addEventListener('keydown', (event) => {
    const move = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (!move || at < 0) return;
    event.preventDefault();
    buttons[clamp(at + move, 0, buttons.length - 1)].focus();
  });
}
