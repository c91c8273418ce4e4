// Every head of every layer as a small picture, painted while it is in sight.

import { decompressArray } from './arrays.js';
import { paint } from './charts.js';
import { createScale } from './colours.js';
import { el } from './dom.js';
import { range } from './geometry.js';
import { matrixOfHead } from './matrices.js';

const MAX_PIXELS = 64; // a side, as wide as page.css lets a thumbnail be

/** Paints elements that are in sight, one at a time with a pause, so that the page answers meanwhile. */
function createPainter(paintElement) {
  const waiting = new Set();
  let working = false;

  async function work() {
    if (working) return;
    working = true;
    while (waiting.size) {
      const [element] = waiting;
      waiting.delete(element);
      await paintElement(element);
      observer.unobserve(element);
      await new Promise((resolve) => setTimeout(resolve));
    }
    working = false;
  }

  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) waiting.add(target);
      else waiting.delete(target);
    }
    work();
  });
  return {
    watch: (elements) => elements.forEach((element) => observer.observe(element)),
    forget() {
      observer.disconnect();
      waiting.clear();
    },
  };
}

/** The thumbnails of the chosen reading, a row a layer; they are painted from the first `watch` on. */
export function createThumbnails({ runs: readings, tokens }, store) {
  const { state } = store;
  const T = tokens.length;
  const element = el('div', { class: 'thumbnails' });
  let buttons = [];

  const painter = createPainter(async (button) => {
    const { weights, causal } = readings[state.reading];
    const heads = await decompressArray(weights[button.dataset.layer]);
    const isVisible = (row, column) => !causal || column <= row;
    const scale = createScale(state.dark, 'sequential', 1); // one for all
    const matrix = matrixOfHead(heads, Number(button.dataset.head), T);
    paint(button.firstChild, matrix, [T, T], scale, { isVisible, maxPixels: MAX_PIXELS });
    button.classList.remove('waiting');
  });

  function createThumbnail(layer, head) {
    const title = `layer ${layer + 1} head ${head + 1}`;
    return el('button', { type: 'button', class: 'thumbnail waiting', 'data-layer': layer, 'data-head': head,
      'aria-label': title, title, click: () => store.set({ layer, head, view: 'head' }) },
    el('canvas', { width: 1, height: 1 }));
  }

  function mark() {
    for (const button of buttons) {
      const isOfLayer = Number(button.dataset.layer) === state.layer;
      const isOfHead = state.view !== 'head' || Number(button.dataset.head) === state.head;
      button.setAttribute('aria-pressed', isOfLayer && isOfHead);
    }
  }

  function draw() {
    painter.forget();
    const { weights } = readings[state.reading];
    const [numHeads] = weights[0].shape;
    const rows = weights.map((_, layer) => range(numHeads).map((head) => createThumbnail(layer, head)));
    buttons = rows.flat();
    element.replaceChildren(...rows.flatMap((row, layer) => [el('span', { class: 'layer' }, layer + 1), ...row]));
    element.style.setProperty('--heads', numHeads);
    mark();
  }

  const watch = () => painter.watch(buttons);
  draw();
  store.subscribe(['reading'], () => {
    draw();
    watch();
  });
  store.subscribe(['layer', 'head', 'view'], mark);
  return { element, watch };
}
