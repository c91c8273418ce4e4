// The section of training: one head's attention and the fills at every checkpoint of a run.

import { decompressArray } from './arrays.js';
import { paint } from './charts.js';
import { createScale } from './colours.js';
import { choice, el, numberedOptions, pairTexts, section, table } from './dom.js';
import { matrixOfHead } from './matrices.js';
import { placeName } from './predictions.js';
import { latest } from './store.js';

const MAX_PIXELS = 160; // a side; page.css shows a picture in 130, on screens of a higher density in more

function fillTable(tokens, checkpoints) {
  const positions = [...new Set(checkpoints.flatMap(({ fills }) => (fills ?? []).map(({ position }) => position)))];
  if (!positions.length) return null;
  const guess = ({ fills }, position) =>
    pairTexts(fills.find((fill) => fill.position === position).alternatives.slice(0, 3)).join(', ');
  const rows = checkpoints.map((checkpoint) =>
    [checkpoint.name, ...positions.map((position) => guess(checkpoint, position))]);
  return table(['', ...positions.map((position) => placeName(tokens, position))], rows, { class: 'prose' });
}

export function createCheckpointsView({ checkpoints, tokens, model }, store) {
  const { state } = store;
  const pictures = el('div', { class: 'row' });

  async function picture({ name, weights }, layer, head) {
    const [, T] = weights[layer].shape;
    const canvas = el('canvas', { class: 'heat small', role: 'img', 'aria-label': `attention at ${name}` });
    const matrix = matrixOfHead(await decompressArray(weights[layer]), head, T);
    paint(canvas, matrix, [T, T], createScale(state.dark, 'sequential', 1), { maxPixels: MAX_PIXELS });
    return el('figure', {}, el('figcaption', {}, name), canvas);
  }

  const draw = latest(
    () => Promise.all(checkpoints.map((each) => picture(each, state.checkpointLayer, state.checkpointHead))),
    (loaded) => pictures.replaceChildren(...loaded),
  );
  store.subscribe(['checkpointLayer', 'checkpointHead'], draw);
  const element = section('checkpoints', 'Training',
    'The same text at points of the training, from left to right: how one head and the guesses took shape.',
    el('div', { class: 'controls' },
      choice(store, 'checkpointLayer', 'checkpoint-layer', 'layer', numberedOptions('layer', model.layers)),
      choice(store, 'checkpointHead', 'checkpoint-head', 'head', numberedOptions('head', model.heads))),
    pictures, fillTable(tokens, checkpoints));
  return { element, ready: draw() };
}
