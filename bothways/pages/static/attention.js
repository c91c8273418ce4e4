// Tokens and attention: small multiples, one matrix large, lines between words, who looks at whom.

// ---- Tokens

function unitsOf(merge) {
  const units = [];
  tokens.forEach(({ word, segment }, index) => {
    const last = units.at(-1);
    const before = last && tokens[last[0]];
    if (merge && last && word >= 0 && before.word === word && before.segment === segment) last.push(index);
    else units.push([index]);
  });
  return units;
}

function tokenDetails(token, index) {
  const facts = [`“${token.token}”`, `token ${index}`, `id ${token.id}`, `position ${token.position}`];
  facts.push(`segment ${'AB'[token.segment] ?? token.segment}`);
  if (token.word >= 0) facts.push(`of the word “${data.words?.[token.word] ?? token.word}”`);
  if (token.special) facts.push('special');
  if (token.unknown) facts.push('not in the vocabulary');
  return facts.join(', ');
}

function chip(token, index) {
  const kinds = ['chip', `segment-${token.segment}`, token.special && 'special', token.unknown && 'unknown'];
  return el('button', { type: 'button', class: kinds.filter(Boolean).join(' '), title: tokenDetails(token, index),
    focus: () => selectToken(index), click: () => selectToken(index) },
  el('span', {}, token.token), el('small', {}, `${token.id} · ${token.position}`));
}

function markChips() {
  parts.chips?.forEach((one, index) => {
    one.setAttribute('aria-pressed', index === state.token);
    one.tabIndex = index === state.token ? 0 : -1;
  });
}

function drawTokens() {
  const body = section('tokens', 'Tokens',
    'The pieces the model reads, each with its number in the vocabulary and its position; joined pieces are one word.');
  parts.chips = tokens.map(chip);
  const list = el('div', { class: 'chips' }, unitsOf(true).map((unit) =>
    el('span', { class: 'joined' }, unit.map((index) => parts.chips[index]))));
  arrowKeys(list, parts.chips);
  body.append(list);
  if (data.text?.b) body.append(key([['A, the first text', 'var(--a)'], ['B, the second text', 'var(--b)']]));
  markChips();
}

// ---- Attention: numbers

const layersOf = (run) => (run.weights ?? run.rollout ?? []).length;
const headsOf = (run) => run.weights?.find(Boolean)?.shape[0] ?? data.model.heads;
const ofHeads = () => state.view === 'head' || state.view === 'average';
const showsScores = () => state.kind === 'scores' && ofHeads();

async function rawMatrix(run) {
  if (!ofHeads()) {
    const packed = run[state.view]?.[state.layer];
    return packed ? unpack(packed) : null;
  }
  const packed = (showsScores() ? run.scores : run.weights)?.[state.layer];
  if (!packed) return null;
  const all = await unpack(packed);
  if (state.view === 'head') return all.subarray(state.head * T * T, (state.head + 1) * T * T);
  const heads = packed.shape[0];
  const mean = new Float32Array(T * T);
  all.forEach((value, at) => (mean[at % mean.length] += value / heads));
  return mean;
}

// A word gets what its pieces get and looks as its pieces look on average; scores do not add up, so they are averaged.
function mergedMatrix(raw, units, run) {
  const values = new Float32Array(units.length ** 2);
  units.forEach((from, row) => units.forEach((to, column) => {
    let sum = 0;
    let seen = 0;
    for (const i of from) for (const j of to) {
      if (showsScores() && run.causal && j > i) continue;
      sum += raw[i * T + j];
      seen += 1;
    }
    values[row * units.length + column] = seen ? sum / (showsScores() ? seen : from.length) : 0;
  }));
  return values;
}

async function viewOf(runIndex) {
  const run = runs[runIndex];
  const raw = await rawMatrix(run);
  if (!raw) return null;
  const units = unitsOf(state.words);
  const values = state.words ? mergedMatrix(raw, units, run) : raw;
  const segment = units.map((unit) => 'ab'[tokens[unit[0]].segment]);
  const masked = (row, column) => run.causal && column > row;
  const shown = (row, column) => !masked(row, column) && (state.pair === 'all' || segment[row] + segment[column] === state.pair);
  const n = units.length;
  let most = 0;
  for (let at = 0; at < values.length; at += 1) {
    if (Math.abs(values[at]) > most && shown(Math.floor(at / n), at % n)) most = Math.abs(values[at]);
  }
  const names = units.map((unit) => (state.words && data.words?.[tokens[unit[0]].word]) || tokens[unit[0]].token);
  return { runIndex, run, units, names, n, values, masked, shown, scale: { kind: showsScores() ? 'signed' : 'sequential', most: most || 1 } };
}

const cellText = (view, row, column) => {
  if (view.masked(row, column)) return showsScores() ? MINUS_INFINITY : 'not seen';
  return view.shown(row, column) ? view.values[row * view.n + column].toFixed(3) : 'left out';
};

// ---- Attention: small multiples

function drawThumbnails() {
  parts.watcher?.disconnect();
  const run = runs[state.run];
  if (!run.weights) return;
  const heads = headsOf(run);
  const waiting = new Map();
  let working = false;

  async function work() {
    if (working) return;
    working = true;
    while (waiting.size && parts.watcher === watcher) {
      const [button, { layer, head }] = waiting.entries().next().value;
      waiting.delete(button);
      const values = await unpack(run.weights[layer]);
      paint(button.firstChild, values.subarray(head * T * T, (head + 1) * T * T), T, T,
        { kind: 'sequential', most: 1 }, (row, column) => !run.causal || column <= row, 64);
      button.classList.remove('waiting');
      watcher.unobserve(button);
      await new Promise((resolve) => setTimeout(resolve));
    }
    working = false;
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) waiting.set(target, { layer: Number(target.dataset.layer), head: Number(target.dataset.head) });
      else waiting.delete(target);
    }
    work();
  });
  const thumbnail = (layer, head) => el('button', { type: 'button', class: 'thumbnail waiting', 'data-layer': layer, 'data-head': head,
    'aria-label': `layer ${layer + 1} head ${head + 1}`, title: `layer ${layer + 1} head ${head + 1}`, click: () => chooseHead(layer, head) },
  el('canvas', { width: 1, height: 1 }));

  parts.thumbnails.replaceChildren();
  run.weights.forEach((packed, layer) => {
    if (packed) parts.thumbnails.append(el('span', { class: 'layer' }, layer + 1), ...range(heads).map((head) => thumbnail(layer, head)));
  });
  parts.thumbnails.style.setProperty('--heads', heads);
  parts.watcher = watcher;
  markThumbnail();
}

const watchThumbnails = () => parts.thumbnails.querySelectorAll('button').forEach((one) => parts.watcher.observe(one));

function markThumbnail() {
  for (const one of parts.thumbnails.querySelectorAll('button')) {
    const ofLayer = Number(one.dataset.layer) === state.layer;
    one.setAttribute('aria-pressed', ofLayer && (state.view !== 'head' || Number(one.dataset.head) === state.head));
  }
}

function chooseHead(layer, head) {
  Object.assign(state, { layer, head, view: 'head' });
  document.getElementById('attention-layer').value = layer;
  document.getElementById('attention-head').value = head;
  document.getElementById('attention-view').value = 'head';
  changed();
}

// ---- Attention: one matrix, large

const VIEW_NOTES = {
  average: 'average of its heads',
  rollout: 'rollout: attention through all layers up to this one',
  gradient: 'gradient-weighted: attention that spoke for what was decided',
};

function matrixFigure(view, id) {
  const title = `${view.run.name}, layer ${state.layer + 1}, ${state.view === 'head' ? `head ${state.head + 1}` : VIEW_NOTES[state.view]}`;
  const { n, names } = view;
  const cells = n <= 40;
  const cell = cells ? clamp(Math.floor(480 / n), 14, 30) : Math.max(1, Math.floor(560 / n));
  const margin = cells ? 84 : 0;
  const size = margin + n * cell;
  const board = svg('svg', { viewBox: `0 0 ${size} ${size}`, width: size, height: size, role: 'img',
    'aria-label': `${title}: rows look at columns` });
  const readout = el('output', { class: 'readout' }, 'Row: who looks. Column: at whom.');
  const marks = [svg('rect', { class: 'mark', x: margin, width: n * cell, height: cell }),
    svg('rect', { class: 'mark', y: margin, width: cell, height: n * cell })];
  const box = el('div', { class: 'board', style: { width: `${size}px`, height: `${size}px` } });
  if (cells) board.append(...svgCells(view, id, cell, margin), ...svgNames(names, cell, margin));
  else {
    const canvas = el('canvas', { class: view.run.causal ? 'hatched' : '' });
    paint(canvas, view.values, n, n, view.scale, view.shown);
    box.append(canvas);
  }
  board.append(...marks);
  box.append(board);
  board.addEventListener('pointermove', (event) => {
    const at = cellUnder(event, board, n, n, margin);
    if (!at) return;
    readout.textContent = `${names[at[0]]} → ${names[at[1]]}: ${cellText(view, ...at)}`;
    highlight(at[0]);
  });
  board.addEventListener('click', (event) => {
    const at = cellUnder(event, board, n, n, margin);
    if (at) selectToken(view.units[at[0]][0]);
  });
  board.addEventListener('pointerleave', () => highlight(unitWith(state.token)));
  const mark = (unit) => {
    marks[0].setAttribute('y', margin + unit * cell);
    marks[1].setAttribute('x', margin + unit * cell);
  };
  const figure = el('figure', { id, 'data-layer': state.layer, 'data-head': state.head, 'data-run': view.runIndex,
    'data-view': state.view, 'data-kind': showsScores() ? 'scores' : 'weights' },
    el('figcaption', {}, title), el('div', { class: 'scroll' }, box), legend(view.scale), readout);
  return { figure, mark };
}

function svgCells(view, id, cell, margin) {
  const made = [svg('defs', {}, svg('pattern', { id: `${id}-hatch`, width: 6, height: 6, patternUnits: 'userSpaceOnUse' },
    svg('path', { d: 'M0 6L6 0', class: 'hatch' })))];
  for (let row = 0; row < view.n; row += 1) for (let column = 0; column < view.n; column += 1) {
    const masked = view.masked(row, column);
    const shown = view.shown(row, column);
    const place = { x: margin + column * cell, y: margin + row * cell };
    const fill = masked ? `url(#${id}-hatch)` : shown ? colour(view.scale, view.values[row * view.n + column]) : 'none';
    made.push(svg('rect', { ...place, width: cell - 1, height: cell - 1, fill, class: masked ? 'masked' : null,
      'data-row': row, 'data-column': column, 'data-value': shown ? view.values[row * view.n + column].toFixed(4) : null }));
    if (masked && showsScores()) {
      made.push(svg('text', { x: place.x + cell / 2, y: place.y + cell * 0.65, class: 'infinite' }, MINUS_INFINITY));
    }
  }
  return made;
}

function svgNames(names, cell, margin) {
  const short = (name) => (name.length > 11 ? `${name.slice(0, 10)}…` : name);
  return names.flatMap((name, index) => {
    const middle = margin + (index + 0.5) * cell;
    return [svg('text', { x: margin - 5, y: middle + 4, 'text-anchor': 'end' }, short(name)),
      svg('text', { transform: `translate(${middle + 4} ${margin - 5}) rotate(-90)` }, short(name))];
  });
}

const ROW = 22; // pixels from one token to the next, as in the style sheet
const MOST_LINES = 1500;

function line(from, to, share, kind) {
  return svg('line', { x1: 0, y1: (from + 0.5) * ROW, x2: 100, y2: (to + 0.5) * ROW, class: kind, opacity: clamp(share, 0, 1).toFixed(3) });
}

function linesFigure(view) {
  const { n, units, names } = view;
  const side = (name) => names.map((label, index) => {
    const unit = units[index];
    const choose = () => { selectToken(unit[0]); highlight(index); };
    return el('button', { type: 'button', class: `token segment-${tokens[unit[0]].segment}${tokens[unit[0]].special ? ' special' : ''}`,
      'data-token': unit[0], 'data-side': name, title: unit.map((at) => tokenDetails(tokens[at], at)).join('\n'),
      focus: choose, click: choose, pointerenter: () => highlight(index) }, label);
  });
  const from = side('from');
  const to = side('to');
  const strongest = [];
  view.values.forEach((value, at) => {
    if (value > view.scale.most * 0.02 && view.shown(Math.floor(at / n), at % n)) strongest.push(at);
  });
  strongest.sort((a, b) => view.values[b] - view.values[a]).splice(MOST_LINES);
  const all = svg('g', {}, strongest.map((at) => line(Math.floor(at / n), at % n, view.values[at] / view.scale.most, 'any')));
  const active = svg('g');
  const drawing = svg('svg', { viewBox: `0 0 100 ${n * ROW}`, preserveAspectRatio: 'none', height: n * ROW, 'aria-hidden': 'true' }, all, active);
  const columns = el('div', { class: 'lines', pointerleave: () => highlight(unitWith(state.token)) },
    el('div', { class: 'column' }, from), drawing, el('div', { class: 'column' }, to));
  arrowKeys(columns.firstChild, from);
  arrowKeys(columns.lastChild, to);
  const figure = el('figure', { class: 'between' }, el('figcaption', {}, 'Left: who looks. Right: at whom. Stronger line: more.'), columns);
  const show = (unit) => { // scrolls only where the token is out of sight
    const top = unit * ROW - columns.scrollTop;
    if (top < 0 || top + ROW > columns.clientHeight) columns.scrollTop = unit * ROW - columns.clientHeight / 2;
  };
  return { figure, from, to, all, active, show };
}

async function drawLarge() {
  const current = turn('large');
  const place = parts.large;
  if (!place.firstChild) place.append('…');
  place.classList.add('busy');
  const both = state.beside && runs.length > 1;
  const views = await Promise.all((both ? [state.run, 1 - state.run] : [state.run]).map(viewOf));
  if (!current()) return;
  place.classList.remove('busy');
  const there = views.filter(Boolean);
  if (!views[0]) {
    place.replaceChildren(el('p', { id: 'matrix', class: 'how' }, 'This view was left out of the file.'));
    parts.looks.replaceChildren();
    parts.shown = null;
    return;
  }
  const matrices = there.map((view, index) => matrixFigure(view, index ? 'matrix-beside' : 'matrix'));
  const lines = linesFigure(there[0]);
  parts.shown = { views: there, matrices, lines };
  place.replaceChildren(...matrices.map((one) => one.figure), lines.figure);
  highlight(unitWith(state.token));
}

const unitWith = (token) => parts.shown?.views[0].units.findIndex((unit) => unit.includes(token)) ?? 0;

function highlight(unit) {
  if (!parts.shown || unit < 0) return;
  const { views, matrices, lines } = parts.shown;
  const [view] = views;
  matrices.forEach((one) => one.mark(unit));
  lines.all.setAttribute('class', 'faint');
  const share = (row, column) => (view.shown(row, column) ? Math.max(0, view.values[row * view.n + column] / view.scale.most) : 0);
  const active = [];
  for (let other = 0; other < view.n; other += 1) {
    const given = share(unit, other);
    const got = share(other, unit);
    lines.to[other].style.setProperty('--strength', given.toFixed(3));
    lines.from[other].style.setProperty('--strength', got.toFixed(3));
    for (const one of [lines.from[other], lines.to[other]]) {
      one.classList.toggle('active', other === unit);
      one.tabIndex = view.units[other].includes(state.token) ? 0 : -1;
    }
    if (got > 0.01) active.push(line(other, unit, got, 'got'));
    if (given > 0.01) active.push(line(unit, other, given, 'given'));
  }
  lines.active.replaceChildren(...active);
  lines.show(unit);
  parts.looks.replaceChildren(...views.map((one) => looksOf(one, unit)));
}

function looksOf(view, unit) {
  const most = view.scale.most;
  const others = range(view.n);
  const valueAt = (row, column) => view.values[row * view.n + column];
  const best = (cells) => cells.filter(([, row, column]) => view.shown(row, column))
    .map(([other, row, column]) => [other, valueAt(row, column)]).sort((one, next) => next[1] - one[1]).slice(0, 8);
  const side = (title, pairs) => el('div', {}, table([title, '', ''], pairs.length ? pairs.map(([other, value]) =>
    [`${view.names[other]} (${tokens[view.units[other][0]].position})`, number(value, 3), wideBar(value / most)]) : [['nothing', '', '']]));
  const sum = others.reduce((total, column) => total + valueAt(unit, column), 0);
  const about = showsScores() ? 'Scores are any number; the softmax makes weights of them.' : `Its row sums to ${sum.toFixed(3)}.`;
  return el('div', { class: 'looked' },
    el('p', {}, el('strong', {}, `“${view.names[unit]}”`), ` at position ${tokens[view.units[unit][0]].position}, ${view.run.name}. ${about}`),
    side('looks at', best(others.map((other) => [other, unit, other]))),
    side('is looked at by', best(others.map((other) => [other, other, unit]))));
}

// ---- Attention: the section

function changed() {
  for (const [id, off] of [['attention-head', state.view !== 'head'], ['attention-kind', !ofHeads()]]) {
    const control = document.getElementById(id);
    if (control) control.disabled = off;
  }
  markThumbnail();
  followInSteps();
  return drawLarge();
}

async function drawAttention() {
  const body = section('attention', 'Attention',
    'How much each token (row) takes from every other (column): stronger colour is more, and each row is shared out to 1.');
  const one = runs[0];
  const set = (key, read = (value) => value) => (value) => { state[key] = read(value); changed(); };
  const kinds = [['weights', 'weights'], ['scores', 'scores before softmax']];
  const pairs = [['all', 'all'], ['ab', 'A→B'], ['ba', 'B→A'], ['aa', 'within A'], ['bb', 'within B']];
  const views = [['head', 'one head'], ['average', 'average of heads'], ['rollout', 'rollout'], ['gradient', 'gradient-weighted']];
  const has = { head: one.weights, average: one.weights, rollout: one.rollout, gradient: runs.some((run) => run.gradient) };
  if (!has[state.view]) state.view = views.find(([name]) => has[name])[0];
  const controls = [
    runs.length > 1 && choice('attention-run', 'run', runs.map((run, index) => [index, run.name]), state.run, (value) => {
      state.run = Number(value);
      drawThumbnails();
      watchThumbnails();
      changed();
    }),
    choice('attention-layer', 'layer', counted('layer', layersOf(one)), state.layer, set('layer', Number)),
    choice('attention-head', 'head', counted('head', headsOf(one)), state.head, set('head', Number)),
    choice('attention-view', 'view', views.filter(([name]) => has[name]), state.view, set('view')),
    runs.some((run) => run.scores) && choice('attention-kind', 'numbers', kinds, state.kind, set('kind')),
    tokens.some((token) => token.segment === 1) && choice('attention-pair', 'between', pairs, state.pair, set('pair')),
    tick('attention-words', 'merge pieces to words', state.words, set('words')),
    runs.length > 1 && tick('attention-beside', 'beside the other run', state.beside, set('beside')),
  ];
  parts.thumbnails = el('div', { class: 'thumbnails' });
  parts.large = el('div', { class: 'large' });
  parts.looks = el('div', { id: 'looks' });
  body.append(el('div', { class: 'controls' }, controls),
    el('h3', {}, 'All heads'), how('One row per layer, one picture per head, all on one scale; press one to see it large.'),
    parts.thumbnails, el('h3', {}, 'One of them'), parts.large, parts.looks);
  drawThumbnails();
  await changed();
  watchThumbnails(); // only now: the chosen layer goes first
}
