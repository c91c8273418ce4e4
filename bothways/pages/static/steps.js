// The section step by step: one token's attention in one head, worked out in numbers.

import { decompressArray } from './arrays.js';
import { barCell, choice, el, explanation, numberCell, numberedOptions, section, table } from './dom.js';
import { range } from './geometry.js';
import { attentionSteps } from './matrices.js';
import { MINUS_INFINITY } from './matrix_figure.js';
import { latest, MATRIX_FIELDS } from './store.js';

const NUM_SHOWN = 8; // of the D numbers of a query: as many as a narrow screen has room for

function keyTable(tokens, { products, scaled, masked, weights }, D) {
  const rows = tokens.map(({ token }, index) => [
    `${index}: ${token}`, numberCell(products[index]), numberCell(scaled[index]),
    masked[index] === -Infinity ? el('td', { class: 'number' }, MINUS_INFINITY) : numberCell(masked[index]),
    numberCell(weights[index]), barCell(weights[index]),
  ]);
  return table(['key of', 'q·k', `÷ √${D}`, 'after the mask', 'softmax', ''], rows, { class: 'stepped' });
}

function vectorTable({ query, mixed }, shown) {
  const row = (name, vector) => [name, ...shown.map((at) => numberCell(vector[at]))];
  return table(['', ...shown.map(String)], [row('query', query), row('Σ weight · v', mixed)], { class: 'stepped' });
}

export function createStepsView({ runs: readings, tokens, model }, store) {
  const { state } = store;
  const place = el('div', {}, '…');
  const [, T, D] = readings[0].queries[0].shape;

  async function load() {
    const { stepsReading, stepsLayer, stepsHead: head, stepsToken: token } = state;
    const reading = readings[stepsReading];
    const vectors = [reading.queries, reading.keys, reading.values];
    const loaded = await Promise.all(vectors.map((layers) => decompressArray(layers[stepsLayer])));
    const [queries, keys, values] = loaded;
    return attentionSteps({ queries, keys, values }, { T, D, head, token, causal: reading.causal });
  }

  function show(steps) {
    const shown = range(Math.min(NUM_SHOWN, D));
    const about = `The first ${shown.length} of ${D} numbers of the query, and of what comes out: Σ weight · value.`;
    place.replaceChildren(keyTable(tokens, steps, D), explanation(about), vectorTable(steps, shown));
  }

  const readingOptions = readings.map(({ name }, index) => [index, name]);
  const tokenOptions = tokens.map(({ token }, index) => [index, `${index}: ${token}`]);
  const controls = el('div', { class: 'controls' },
    readings.length > 1 && choice(store, 'stepsReading', 'steps-reading', 'run', readingOptions),
    choice(store, 'stepsLayer', 'steps-layer', 'layer', numberedOptions('layer', model.layers)),
    choice(store, 'stepsHead', 'steps-head', 'head', numberedOptions('head', model.heads)),
    choice(store, 'stepsToken', 'steps-token', 'token', tokenOptions));
  store.subscribe([...MATRIX_FIELDS, 'token'], () => store.set({
    stepsReading: state.reading, stepsLayer: state.layer, stepsHead: state.head, stepsToken: state.token,
  }));
  const draw = latest(load, show);
  store.subscribe(['stepsReading', 'stepsLayer', 'stepsHead', 'stepsToken'], draw);
  const element = section('steps', 'Step by step',
    'One token’s attention in one head, worked out: its query against every key, scaled, masked, softmaxed, and the '
    + 'values mixed so.', controls, place);
  return { element, ready: draw() };
}
