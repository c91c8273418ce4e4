// The section of embeddings: tokens on a plane, a word's nearness to others, cosines, sentences, neighbours; a slider
// goes through the states of the model. S states, P tokens of all sentences.

import { decompressArray } from './arrays.js';
import { chartWidth, heatMap, scatter, stateChart } from './charts.js';
import { createScale, hueOf } from './colours.js';
import { colourKey, el, explanation, numberCell, pairTexts, section, stateName, table } from './dom.js';
import { boundingBox, range } from './geometry.js';

/** The arrays of the view: points, S of `[P, 2]` as pairs; paths `[S, anchors]`; cosines `[S, P, P]` or null. */
async function loadArrays({ points, paths, cosines }) {
  const pairs = (numbers) => range(numbers.length / 2).map((index) => [numbers[2 * index], numbers[2 * index + 1]]);
  return {
    points: (await Promise.all(points.map(decompressArray))).map(pairs),
    paths: await Promise.all(paths.map((path) => decompressArray(path.cosines))),
    cosines: cosines && await decompressArray(cosines),
  };
}

function plane({ tokens, word: followed }, { points, box, tokenName }, state) {
  const dots = tokens.map(({ token, word, sentence }, index) => ({ index, at: points[state][index], label: token,
    title: tokenName(index), colour: hueOf(sentence), strong: followed !== null && word === followed }));
  const trails = dots.filter(({ strong }) => strong)
    .map(({ index, colour }) => ({ colour, path: points.map((of) => of[index]) }));
  return scatter(dots, { trails, box, label: `tokens at ${stateName(state)}` });
}

function anchorCharts({ anchors, sentences, paths: described }, paths, state) {
  const all = paths.flatMap((cosines) => [...cosines]);
  const ends = [Math.min(...all), Math.max(...all)];
  const chart = (cosines, index) => {
    const numStates = cosines.length / anchors.length;
    const curves = anchors.map((name, anchor) => ({ name, colour: hueOf(anchor + 4), // not the sentences' colours
      values: range(numStates).map((of) => cosines[of * anchors.length + anchor]) }));
    return stateChart(sentences[described[index].sentence], curves, ends, state);
  };
  return el('div', { class: 'row' }, paths.map(chart));
}

function cosineMap(cosines, P, { tokenName, dark }, state) {
  return heatMap(cosines.subarray(state * P * P, (state + 1) * P * P), [P, P], {
    scale: createScale(dark, 'signed', 1), rowName: tokenName, columnName: tokenName, square: true,
    title: `Cosine of each token with each, ${stateName(state)}` });
}

/** Whole sentences: on a plane, and their cosines; of one, how others are added. */
function sentenceParts({ sentences, sentence_points: points, sentence_cosines: cosines }) {
  const heading = el('h3', {}, 'Whole sentences');
  if (sentences.length < 2) {
    return [heading, explanation('Add --others "another sentence" "a third" (others=[…] in Python) to see here how '
      + 'alike whole sentences are.')];
  }
  const numbered = sentences.map((text, index) => `${index + 1}. ${text}`);
  const dots = points.map((at, index) =>
    ({ at, label: String(index + 1), title: numbered[index], colour: hueOf(index), strong: true }));
  const rows = cosines.map((row, index) => [numbered[index], ...row.map((cosine) => numberCell(cosine, 3))]);
  return [heading,
    scatter(dots, { width: Math.min(chartWidth(), 360), label: 'sentences' }),
    table(['cosine', ...sentences.map((_, index) => String(index + 1))], rows)];
}

const neighbourParts = ({ neighbours }) => [el('h3', {}, 'Nearest in the vocabulary'),
  table(['token', 'nearest, with cosine'],
    neighbours.map(({ token, near }) => [token, pairTexts(near, 2).join(', ')]), { class: 'prose' })];

export function createEmbeddingsView({ embeddings }, store) {
  const { sentences, tokens, word } = embeddings;
  const { dark, embeddingsState } = store.state;
  const name = el('output', {});
  const max = embeddings.points.length - 1;
  const slider = el('input', { id: 'embeddings-state', type: 'range', min: 0, max, step: 1,
    input: () => store.set({ embeddingsState: Number(slider.value) }) });
  slider.value = embeddingsState;
  const plots = el('div', {}, '…');
  const tokenName = (index) => `${tokens[index].token} (sentence ${tokens[index].sentence + 1})`;
  const element = section('embeddings', 'Embeddings',
    'Where tokens lie in the model’s space, flattened to two directions; near means alike. The slider goes from the '
    + 'input to the last layer.',
    el('div', { class: 'controls' }, el('label', { class: 'control' }, el('span', {}, 'state'), slider, name)),
    colourKey(sentences.map((text, index) => [text, hueOf(index)])), plots);

  async function draw() {
    const { points, paths, cosines } = await loadArrays(embeddings);
    const box = boundingBox(points.flat());
    const show = () => {
      const state = store.state.embeddingsState;
      name.textContent = stateName(state);
      const parts = [plane(embeddings, { points, box, tokenName }, state)];
      if (paths.length) {
        parts.push(el('h3', {}, `How near “${word}” is to other words`), anchorCharts(embeddings, paths, state));
      }
      if (cosines) parts.push(cosineMap(cosines, tokens.length, { tokenName, dark }, state));
      plots.replaceChildren(...parts);
    };
    show();
    store.subscribe(['embeddingsState'], show);
    element.append(...sentenceParts(embeddings), ...neighbourParts(embeddings));
  }

  return { element, ready: draw() };
}
