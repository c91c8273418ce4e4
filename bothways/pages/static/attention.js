// The section of attention: its controls, all heads small, one matrix large with lines between its tokens, and who
// looks at whom in numbers.

import { barCell, checkbox, choice, el, explanation, numberCell, numberedOptions, section, table } from './dom.js';
import { range } from './geometry.js';
import { createLinesFigure } from './lines_figure.js';
import { isOfHeads, isScores, loadMatrix, strongestOf } from './matrices.js';
import { createMatrixFigure } from './matrix_figure.js';
import { latest, MATRIX_FIELDS } from './store.js';
import { createThumbnails } from './thumbnails.js';

/** What a group of tokens looks at, and what looks at it, in numbers. */
function strongestTables({ tokens }, matrix, index) {
  const { reading, chosen, groups, names, n, values, largest } = matrix;
  const position = (group) => tokens[groups[group][0]].position;
  const row = ([other, value]) =>
    [`${names[other]} (${position(other)})`, numberCell(value, 3), barCell(value / largest)];
  const side = (title, strongest) =>
    el('div', {}, table([title, '', ''], strongest.length ? strongest.map(row) : [['nothing', '', '']]));
  const sum = range(n).reduce((total, column) => total + values[index * n + column], 0);
  const about = isScores(chosen)
    ? 'Scores are any number; the softmax makes weights of them.' : `Its row sums to ${sum.toFixed(3)}.`;
  return el('div', { class: 'strongest' },
    el('p', {}, el('strong', {}, `“${names[index]}”`), ` at position ${position(index)}, ${reading.name}. ${about}`),
    side('looks at', strongestOf(matrix, index, true)),
    side('is looked at by', strongestOf(matrix, index, false)));
}

function createControls({ runs: readings, tokens, model }, store) {
  const hasTwo = readings.length > 1;
  const [first] = readings;
  const readingNames = readings.map(({ name }, index) => [index, name]);
  const hasGradient = readings.some(({ gradient }) => gradient);
  const views = [['head', 'one head'], ['average', 'average of heads'], first.rollout && ['rollout', 'rollout'],
    hasGradient && ['gradient', 'gradient-weighted']].filter(Boolean);
  const numbers = [['weights', 'weights'], ['scores', 'scores before softmax']];
  const segments = [['all', 'all'], ['ab', 'A→B'], ['ba', 'B→A'], ['aa', 'within A'], ['bb', 'within B']];
  const controls = {
    reading: hasTwo && choice(store, 'reading', 'attention-reading', 'run', readingNames),
    layer: choice(store, 'layer', 'attention-layer', 'layer', numberedOptions('layer', model.layers)),
    head: choice(store, 'head', 'attention-head', 'head', numberedOptions('head', model.heads)),
    view: choice(store, 'view', 'attention-view', 'view', views),
    numbers: first.scores && choice(store, 'numbers', 'attention-numbers', 'numbers', numbers),
    segments: tokens.some(({ segment }) => segment === 1)
      && choice(store, 'segments', 'attention-segments', 'between', segments),
    mergeWords: checkbox(store, 'mergeWords', 'attention-words', 'merge pieces to words'),
    beside: hasTwo && checkbox(store, 'beside', 'attention-beside', 'beside the other run'),
  };
  const enable = () => {
    controls.head.querySelector('select').disabled = store.state.view !== 'head';
    if (controls.numbers) controls.numbers.querySelector('select').disabled = !isOfHeads(store.state);
  };
  enable();
  store.subscribe(['view'], enable);
  return Object.values(controls);
}

/** The chosen matrix, or both readings' side by side, with the lines of the first, and the numbers in `tables`. */
function createLarge(data, store, tables) {
  const { state } = store;
  const { runs: readings } = data;
  const element = el('div', { class: 'large' });
  let drawn = null; // what `highlight` changes: the matrices, their figures, the lines of the first matrix

  const rowOf = (token) => drawn.matrices[0].groups.findIndex((group) => group.includes(token));

  function highlight(row) {
    drawn.figures.forEach(({ mark }) => mark(row));
    drawn.lines.highlight(row, state.token);
    tables.replaceChildren(...drawn.matrices.map((matrix) => strongestTables(data, matrix, row)));
  }

  const highlightChosen = () => drawn && highlight(rowOf(state.token));
  const callbacks = {
    point: highlight,
    choose: (row) => store.set({ token: drawn.matrices[0].groups[row][0] }),
    leave: highlightChosen,
  };

  function load() {
    if (!element.firstChild) element.append('…');
    element.classList.add('busy');
    const both = state.beside && readings.length > 1;
    const indices = both ? [state.reading, 1 - state.reading] : [state.reading];
    return Promise.all(indices.map((index) => loadMatrix(data, { ...state }, index)));
  }

  function show(loaded) {
    element.classList.remove('busy');
    if (!loaded[0]) {
      element.replaceChildren(el('p', { id: 'matrix', class: 'explanation' }, 'This view was left out of the file.'));
      tables.replaceChildren();
      drawn = null;
      return;
    }
    const matrices = loaded.filter(Boolean);
    const figures = matrices.map((matrix, index) =>
      createMatrixFigure(matrix, index ? 'matrix-beside' : 'matrix', callbacks));
    drawn = { matrices, figures, lines: createLinesFigure(data, matrices[0], callbacks) };
    element.replaceChildren(...figures.map(({ figure }) => figure), drawn.lines.figure);
    highlightChosen();
  }

  const draw = latest(load, show);
  store.subscribe(MATRIX_FIELDS, draw);
  store.subscribe(['token'], highlightChosen);
  return { element, draw };
}

export function createAttentionView(data, store) {
  const thumbnails = createThumbnails(data, store);
  const tables = el('div', { id: 'strongest' });
  const large = createLarge(data, store, tables);
  const element = section('attention', 'Attention',
    'How much each token (row) takes from every other (column): stronger colour is more, and each row is shared out to '
    + '1.',
    el('div', { class: 'controls' }, createControls(data, store)),
    el('h3', {}, 'All heads'),
    explanation('One row per layer, one picture per head, all on one scale; press one to see it large.'),
    thumbnails.element, el('h3', {}, 'One of them'), large.element, tables);
  const ready = large.draw().then(thumbnails.watch); // only now: the chosen layer goes first
  return { element, ready };
}
