// Step by step, embeddings, positions, predictions, training.

// ---- Step by step

function followInSteps() {
  const { run, layer, head, token } = state;
  if (!parts.steps || Object.entries({ run, layer, head, token }).every(([key, value]) => steps[key] === value)) return;
  Object.assign(steps, { layer, head, token }, runs[run].queries && { run });
  for (const key of ['run', 'layer', 'head', 'token']) {
    const control = document.getElementById(`steps-${key}`);
    if (control) control.value = steps[key];
  }
  drawSteps();
}

const isStepped = (run) => Boolean(run.queries && run.keys && run.values);

function drawStepsSection() {
  const body = section('steps', 'Step by step',
    'One token’s attention in one head, worked out: its query against every key, scaled, masked, softmaxed, and the values mixed so.');
  const able = runs.map((run, index) => [index, run.name]).filter(([index]) => isStepped(runs[index]));
  if (!isStepped(runs[steps.run])) [[steps.run]] = able;
  const set = (key) => (value) => { steps[key] = Number(value); drawSteps(); };
  const run = runs[steps.run];
  parts.steps = el('div', {}, '…');
  body.append(el('div', { class: 'controls' },
    able.length > 1 && choice('steps-run', 'run', able, steps.run, set('run')),
    choice('steps-layer', 'layer', counted('layer', run.queries.length), steps.layer, set('layer')),
    choice('steps-head', 'head', counted('head', headsOf(run)), steps.head, set('head')),
    choice('steps-token', 'token', tokens.map((token, index) => [index, `${index}: ${token.token}`]), steps.token, set('token'))), parts.steps);
  return drawSteps();
}

async function drawSteps() {
  const current = turn('steps');
  const { layer, head, token } = { ...steps };
  const run = runs[steps.run];
  if (![run.queries, run.keys, run.values].every((list) => list[layer])) {
    parts.steps.replaceChildren('This layer was left out of the file.');
    return;
  }
  const D = run.queries[layer].shape[2];
  const [queries, keys, values] = await Promise.all([run.queries, run.keys, run.values].map((list) => unpack(list[layer])));
  if (!current()) return;
  const of = (all, index) => all.subarray((head * T + index) * D, (head * T + index + 1) * D);
  const query = of(queries, token);
  const products = tokens.map((_, index) => of(keys, index).reduce((sum, one, at) => sum + one * query[at], 0));
  const masked = products.map((product, index) => (run.causal && index > token ? -Infinity : product / Math.sqrt(D)));
  const highest = Math.max(...masked);
  const raised = masked.map((score) => Math.exp(score - highest));
  const total = raised.reduce((sum, one) => sum + one, 0);
  const weights = raised.map((one) => one / total);
  const mixed = range(D).map((at) => weights.reduce((sum, weight, index) => sum + weight * of(values, index)[at], 0));
  const rows = tokens.map((one, index) => [`${index}: ${one.token}`, number(products[index]), number(products[index] / Math.sqrt(D)),
    masked[index] === -Infinity ? el('td', { class: 'number' }, MINUS_INFINITY) : number(masked[index]),
    number(weights[index]), wideBar(weights[index])]);
  const first = range(Math.min(8, D));
  parts.steps.replaceChildren(
    table(['key of', 'q·k', `÷ √${D}`, 'after the mask', 'softmax', ''], rows, { class: 'stepped' }),
    how(`The first ${first.length} of ${D} numbers of the query, and of what comes out: Σ weight · value.`),
    table(['', ...first.map(String)], [['query', ...first.map((at) => number(query[at]))],
      ['Σ weight · v', ...first.map((at) => number(mixed[at]))]], { class: 'stepped' }));
}

// ---- Embeddings

const hue = (index) => `hsl(${(210 + index * 137.5) % 360} 65% var(--point))`;
const pageWidth = () => Math.max(280, Math.min(page.clientWidth - 32, 720));

// Labels that would cover one already placed are left to the tooltip.
function placeLabels(points, width, height) {
  const taken = points.map(({ x, y }) => [x - 5, y + 5, 10]);
  return points.map(({ x, y, label }) => {
    const long = label.length * 6.5 + 2;
    const spots = [[x + 9, y + 4], [x - 9 - long, y + 4], [x - long / 2, y - 9], [x - long / 2, y + 18]];
    const free = spots.find(([left, base]) => left >= 0 && left + long <= width && base >= 10 && base <= height
      && !taken.some(([l, b, w]) => left < l + w && l < left + long && Math.abs(b - base) < 12));
    if (free) taken.push([...free, long]);
    return free;
  });
}

function scatter(points, box, { width = pageWidth(), height = Math.round(width * 0.6), trails = [], label }) {
  const place = (value, axis, size) => 14 + ((value - box.low[axis]) / (box.high[axis] - box.low[axis] || 1)) * (size - 28);
  const put = ([x, y]) => [place(x, 0, width), height - place(y, 1, height)];
  const ordered = points.map((point) => ({ ...point, x: put(point.at)[0], y: put(point.at)[1] }));
  ordered.sort((one, next) => Boolean(next.strong) - Boolean(one.strong)); // the first ones get their labels
  const spots = placeLabels(ordered, width, height);
  return svg('svg', { class: 'plot', viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': label },
    trails.map(({ colour: stroke, path }) => svg('polyline', { class: 'trail', stroke, points: path.map((at) => put(at).join(',')).join(' ') })),
    ordered.map((point, index) => svg('g', { class: point.strong ? 'strong' : null },
      svg('circle', { cx: point.x, cy: point.y, r: point.strong ? 6 : 3.5, style: { fill: point.colour } },
        svg('title', {}, point.title ?? point.label)),
      spots[index] && svg('text', { x: spots[index][0], y: spots[index][1], style: { fill: point.colour } }, point.label))));
}

function boxOf(pairs) {
  const along = (axis, pick) => pairs.reduce((best, pair) => pick(best, pair[axis]), pairs[0]?.[axis] ?? 0);
  return { low: [along(0, Math.min), along(1, Math.min)], high: [along(0, Math.max), along(1, Math.max)] };
}

function lineChart(title, series, [low, high], place) {
  const width = Math.min(pageWidth(), 340);
  const height = 190;
  const count = series[0].values.length;
  const x = (index) => 34 + (index / Math.max(1, count - 1)) * (width - 44);
  const y = (value) => height - 22 - ((value - low) / (high - low || 1)) * (height - 34);
  const grid = [low, (low + high) / 2, high].map((value) => [svg('line', { class: 'grid', x1: 34, x2: width - 10, y1: y(value), y2: y(value) }),
    svg('text', { x: 30, y: y(value) + 4, 'text-anchor': 'end' }, value.toFixed(2))]);
  return el('figure', {}, el('figcaption', {}, title),
    svg('svg', { class: 'plot', viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': title }, grid,
      svg('line', { class: 'now', x1: x(place), x2: x(place), y1: 8, y2: height - 22 }),
      svg('text', { x: 34, y: height - 6 }, 'embeddings'),
      svg('text', { x: width - 10, y: height - 6, 'text-anchor': 'end' }, stateName(count - 1)),
      series.map(({ values, colour: stroke }) => svg('polyline', { class: 'curve', style: { stroke },
        points: values.map((value, index) => `${x(index)},${y(value)}`).join(' ') }))),
    key(series.map(({ name, colour: shade, values }) => [`${name} ${values[place].toFixed(3)}`, shade])));
}

async function drawEmbeddings() {
  const found = data.embeddings;
  const body = section('embeddings', 'Embeddings',
    'Where tokens lie in the model’s space, flattened to two directions; near means alike. The slider goes from the input to the last layer.');
  const last = (found.points?.length ?? 1) - 1;
  picture.state ??= last;
  const name = el('output', {});
  const slider = el('input', { id: 'embeddings-state', type: 'range', min: 0, max: last, step: 1 });
  slider.addEventListener('input', () => { picture.state = Number(slider.value); show(); });
  slider.value = picture.state;
  const plots = el('div', {}, '…');
  body.append(el('div', { class: 'controls' }, el('label', { class: 'control' }, el('span', {}, 'state'), slider, name)),
    key(found.sentences.map((text, index) => [text, hue(index)])), plots);
  const [points, paths, cosines] = await Promise.all([Promise.all((found.points ?? []).map(unpack)),
    Promise.all((found.paths ?? []).map((path) => unpack(path.cosines))), found.cosines ? unpack(found.cosines) : null]);
  const at = (index, where) => [points[where][index * 2], points[where][index * 2 + 1]];
  const box = boxOf(points.flatMap((values, where) => range(values.length / 2).map((index) => at(index, where))));
  const P = found.tokens.length;
  const tokenName = (index) => `${found.tokens[index].token} (sentence ${found.tokens[index].sentence + 1})`;
  const isStrong = ({ word, token }) => found.word && (word ?? token) === found.word;

  function show() {
    const where = picture.state;
    name.textContent = stateName(where);
    const made = [];
    if (points.length) {
      const dots = found.tokens.map((token, index) => ({ index, at: at(index, where), label: token.token, title: tokenName(index),
        colour: hue(token.sentence), strong: isStrong(token) }));
      const trails = dots.filter(({ strong }) => strong).map((dot) => ({ ...dot, path: points.map((_, one) => at(dot.index, one)) }));
      made.push(scatter(dots, box, { trails, label: `tokens at ${stateName(where)}` }));
    }
    if (paths.length) made.push(el('h3', {}, `How near “${found.word ?? 'the word'}” is to other words`), anchorCharts(found, paths, where));
    if (cosines) {
      const now = cosines.subarray(where * P * P, (where + 1) * P * P);
      made.push(heatMap(now, P, P, { scale: { kind: 'signed', most: 1 }, rowName: tokenName, columnName: tokenName, square: true,
        title: `Cosine of each token with each, ${stateName(where)}` }));
    }
    plots.replaceChildren(...made);
  }
  show();
  drawSentences(body, found);
  if (found.neighbours) body.append(el('h3', {}, 'Nearest in the vocabulary'), table(['token', 'nearest, with cosine'],
    found.neighbours.map(({ token, near }) => [token, listed(near, 2).join(', ')]), { class: 'prose' }));
}

function anchorCharts(found, paths, where) {
  const A = found.anchors.length;
  const all = paths.flatMap((values) => [...values]);
  const ends = [Math.min(...all), Math.max(...all)];
  return el('div', { class: 'row' }, paths.map((values, index) => {
    const series = found.anchors.map((name, anchor) =>
      ({ name, colour: hue(anchor + 4), values: range(values.length / A).map((one) => values[one * A + anchor]) }));
    return lineChart(found.sentences[found.paths[index].sentence], series, ends, where);
  }));
}

function drawSentences(body, found) {
  const numbered = found.sentences.map((text, index) => `${index + 1}. ${text}`);
  if (found.sentence_points) {
    const dots = found.sentence_points.map((at, index) =>
      ({ at, label: String(index + 1), title: numbered[index], colour: hue(index), strong: true }));
    body.append(el('h3', {}, 'Whole sentences'),
      scatter(dots, boxOf(found.sentence_points), { width: Math.min(pageWidth(), 360), label: 'sentences' }));
  }
  if (found.sentence_cosines) body.append(table(['cosine', ...numbered.map((_, index) => String(index + 1))],
    found.sentence_cosines.map((row, index) => [numbered[index], ...row.map((cosine) => number(cosine, 3))])));
}

// ---- Positions

async function drawPositions() {
  const found = data.positions;
  const body = section('positions', 'Positions',
    'What tells the model where a token stands: a row of numbers for each position. Alike ones show as a strong diagonal.');
  const place = el('div', { class: 'row' }, '…');
  body.append(place);
  const position = (index) => `position ${index}`;
  const columnName = (index) => `column ${index}`;
  const compared = (index) => position(found.similarity_rows?.[index] ?? index);
  const heat = async (packed, looks) => {
    if (!packed) return null;
    const values = await unpack(packed);
    return heatMap(values, ...packed.shape, { scale: scaleOf('signed', values), ...looks });
  };
  const made = await Promise.all([
    heat(found.table, { title: `The model’s own (${found.kind})`, rowName: position, columnName }),
    heat(found.sinusoidal, { title: 'Sines and cosines, for comparison', rowName: position, columnName }),
    heat(found.similarity, { title: 'How alike two positions are (cosine)', rowName: compared, columnName: compared, square: true }),
  ]);
  place.replaceChildren(...made.filter(Boolean));
}

// ---- Predictions

const placeName = (position) => `${tokens.find((token) => token.position === position)?.token ?? ''} at position ${position}`;
const titled = (title, ...content) => el('div', { class: 'card' }, el('h3', {}, title), ...content);

function attributionOf({ of, method, scores }) {
  const most = Math.max(...scores.map(Math.abs)) || 1;
  const readout = el('output', { class: 'readout' }, 'Point at a token to read its number.');
  const ranked = tokens.map(({ token }, index) => [token, scores[index]]).sort((one, next) => next[1] - one[1]);
  const most4 = (pairs) => listed(pairs).join(', ') || 'nothing';
  const shaded = tokens.map(({ token }, index) => el('span', { class: scores[index] < 0 ? 'against' : 'for', title: scores[index].toFixed(4),
    style: { '--strength': (Math.abs(scores[index]) / most).toFixed(3) },
    pointerenter: () => { readout.textContent = `${token}: ${scores[index].toFixed(4)}`; } }, token));
  return titled(`What spoke for “${of}”`, how(`By ${method}: blue spoke for it, orange against it.`),
    el('p', { class: 'attribution' }, shaded), readout,
    el('p', {}, `Most for: ${most4(ranked.filter(([, score]) => score > 0).slice(0, 4))}. `,
      `Most against: ${most4(ranked.filter(([, score]) => score < 0).slice(-4).reverse())}.`));
}

function spanChart({ start, end, answer, probability }) {
  const wide = 18;
  const height = 90;
  const most = Math.max(...start, ...end) || 1;
  const columns = (shares, kind, shift) => shares.map((share, index) => {
    const tall = (share / most) * (height - 6);
    return svg('rect', { class: kind, x: index * wide + shift, width: 7, y: height - tall, height: tall },
      svg('title', {}, `${tokens[index]?.token}: ${kind} ${share.toFixed(4)}`));
  });
  const names = tokens.map(({ token }, index) => svg('text', { 'text-anchor': 'end',
    transform: `translate(${index * wide + 12} ${height + 6}) rotate(-90)` }, token.slice(0, 12)));
  const chart = svg('svg', { class: 'plot', width: T * wide + 8, height: height + 84, role: 'img',
    'aria-label': 'where the answer starts and ends' }, columns(start, 'start', 1), columns(end, 'end', 9), names);
  return titled('The answer in the text', el('p', {}, el('strong', {}, answer || 'no answer'), ` with probability ${probability.toFixed(3)}`),
    el('div', { class: 'scroll' }, chart), key([['starts here', 'var(--a)'], ['ends here', 'var(--b)']]),
    how(`The tallest bar is ${most.toFixed(3)}.`));
}

function lensTable(lens) {
  const cell = (best) => el('td', { class: 'lens', title: listed(best ?? []).join('\n'),
    style: { '--strength': (best?.[0]?.[1] ?? 0).toFixed(3) } }, best?.[0]?.[0] ?? '');
  const rows = lens.map((row, index) => [el('th', {}, stateName(index)), ...row.map(cell)]).reverse();
  return titled('What each layer would say',
    how('Every layer’s state read as if it were the last: its best word for each token, stronger where it is surer.'),
    table(['', ...tokens.map(({ token }) => token)], rows, { class: 'lenses' }));
}

function tagTable(tags) {
  return titled('A tag for each word', table(['word', 'tag', '', '', 'else'], tags.map(({ word, labels: [[label, share], ...others] }) =>
    [word, label, number(share, 3), wideBar(share), listed(others.slice(0, 3)).join(', ')])));
}

function drawPredictions() {
  const { fills, next, samples, score, classes, attribution, tags, span, lens } = data.predictions;
  const body = section('predictions', 'Predictions', 'What the model makes of the text: longer bars are more probable.');
  const cards = (fills ?? []).map(({ position, alternatives }) => titled(placeName(position), bars(alternatives)));
  if (next) cards.push(titled('The next word', bars(next)));
  if (samples) cards.push(titled('Drawn from it, token by token', el('ul', {}, samples.map((text) => el('li', {}, text)))));
  if (score !== undefined) cards.push(titled('The score', el('p', {}, score.toFixed(3))));
  if (classes) cards.push(titled('The class', bars(classes)));
  const wide = [attribution && attributionOf(attribution), tags && tagTable(tags), span && spanChart(span), lens && lensTable(lens)];
  body.append(el('div', { class: 'row' }, cards), ...wide.filter(Boolean));
}

// ---- Training

function drawCheckpoints() {
  const found = data.checkpoints;
  const body = section('checkpoints', 'Training',
    'The same text at points of the training, from left to right: how one head and the guesses took shape.');
  const weighed = found.find((one) => one.weights?.[0]);
  const pictures = el('div', { class: 'row' });
  const set = (key) => (value) => { picture[key] = Number(value); show(); };

  async function show() {
    const current = turn('checkpoints');
    const made = await Promise.all(found.map(async ({ name, weights }) => {
      const packed = weights?.[picture.checkpointLayer];
      const canvas = el('canvas', { class: 'heat small', role: 'img', 'aria-label': `attention at ${name}` });
      if (packed) {
        const n = packed.shape[1];
        const start = picture.checkpointHead * n * n;
        const values = (await unpack(packed)).subarray(start, start + n * n);
        paint(canvas, values, n, n, { kind: 'sequential', most: 1 }, undefined, 160);
      }
      return el('figure', {}, el('figcaption', {}, name), packed ? canvas : '—');
    }));
    if (current()) pictures.replaceChildren(...made);
  }

  if (weighed) body.append(el('div', { class: 'controls' },
    choice('checkpoint-layer', 'layer', counted('layer', weighed.weights.length), picture.checkpointLayer, set('checkpointLayer')),
    choice('checkpoint-head', 'head', counted('head', weighed.weights[0].shape[0]), picture.checkpointHead, set('checkpointHead'))), pictures);
  const places = [...new Set(found.flatMap((one) => (one.fills ?? []).map(({ position }) => position)))];
  const guess = (one, position) =>
    listed((one.fills ?? []).find((fill) => fill.position === position)?.alternatives.slice(0, 3) ?? []).join(', ');
  const rows = found.map((one) => [one.name, ...places.map((position) => guess(one, position))]);
  if (places.length) body.append(table(['', ...places.map(placeName)], rows, { class: 'prose' }));
  return weighed && show();
}
