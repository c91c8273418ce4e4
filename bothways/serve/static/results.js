// An answer as one would draw it: bars, marks in the text, a matrix, words in their order.

import { colourOf, createScale, hueOf } from './colours.js';
import { barList, el, table } from './dom.js';

const MAX_LABELS = 20;
const MAX_BARS = 96; // numbers of a vector that are drawn
const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** A line that tells what was chosen. */
const readout = (hint) => el('output', { class: 'readout' }, hint);

function drawClasses(result) {
  if (result.value !== undefined) return el('p', { class: 'large-number' }, result.value.toFixed(4));
  const pairs = Object.entries(result.scores).sort((one, next) => next[1] - one[1]);
  const given = result.labels ? result.labels.join(', ') || 'no label' : result.label;
  const left = pairs.length - MAX_LABELS;
  const more = left > 0 && el('p', { class: 'explanation' }, `and ${left} more`);
  return [el('p', { class: 'verdict' }, given), barList(pairs.slice(0, MAX_LABELS)), more];
}

/** A text with parts of it as buttons. spans: {start, end, label, title, colour}; what overlaps is left out. */
function markedText(given, spans, onChoose) {
  const characters = Array.from(given); // offsets count characters, as Python's do, and not halves of a pair
  const parts = [];
  let at = 0;
  for (const span of [...spans].sort((one, next) => one.start - next.start)) {
    if (span.start < at) continue;
    parts.push(characters.slice(at, span.start).join(''));
    parts.push(el('button', { type: 'button', class: 'entity', title: span.title, style: { '--key': span.colour },
      click: () => onChoose(span) }, characters.slice(span.start, span.end).join(''), el('small', {}, span.label)));
    at = span.end;
  }
  return el('p', { class: 'marked' }, parts, characters.slice(at).join(''));
}

function drawEntities(entities, { texts }) {
  const labels = [...new Set(entities.map(({ label }) => label))];
  const told = readout(entities.length ? 'Choose an entity to read its probability.' : 'No entity was found.');
  const spans = entities.map((entity) => ({ ...entity, colour: hueOf(labels.indexOf(entity.label)),
    title: `${entity.label}, ${percent(entity.probability)}` }));
  const tell = ({ text, label, probability, start, end }) => {
    told.textContent = `“${text}”: ${label} with probability ${probability.toFixed(4)}, characters ${start} to ${end}`;
  };
  return [markedText(texts, spans, tell), told];
}

function drawAnswer(result, { context }) {
  const { text, start, end, probability, alternatives } = result;
  const told = readout('');
  const span = { start, end, label: percent(probability), colour: 'var(--a)', title: 'the answer' };
  const others = [[text || 'no answer', probability],
    ...alternatives.map((other) => [other.text || 'no answer', other.probability])];
  return [el('p', { class: 'verdict' }, text || 'There is no answer in this text.'),
    markedText(context, text ? [span] : [], () => { told.textContent = `characters ${start} to ${end}`; }), told,
    barList(others.slice(0, 6))];
}

function drawFills(masks) {
  return masks.map((fills, index) => el('div', { class: 'card' }, el('h3', {}, `[MASK] ${index + 1}`),
    barList(fills.map(({ token, probability }) => [token, probability]))));
}

function drawScore({ perplexity, log_probability: total, tokens }) {
  const told = readout('Choose a word to read its probability.');
  const words = tokens.map(({ token, probability }) => el('button', { type: 'button', class: 'piece',
    style: { '--strength': Math.sqrt(probability).toFixed(3) },
    click: () => { told.textContent = `“${token}”: ${probability.toPrecision(3)}`; } }, token));
  return [el('p', { class: 'verdict' }, `Perplexity ${perplexity.toPrecision(4)}`),
    el('p', { class: 'explanation' }, `log-probability ${total.toFixed(3)}`),
    el('p', { class: 'marked' }, words), told];
}

const drawRanked = (ranked, shareOf, name) => table(['', 'text', name],
  ranked.map((entry, place) => [String(place + 1), entry.text, shareOf(entry).toFixed(3)]));

function drawVector(vector) {
  const shown = vector.slice(0, MAX_BARS);
  const largest = Math.max(...shown.map(Math.abs)) || 1;
  const bars = shown.map((value, index) => el('span', { title: `${index}: ${value.toFixed(5)}`,
    class: value < 0 ? 'negative' : '', style: { '--share': Math.abs(value) / largest } }));
  return [el('p', { class: 'verdict' }, `${vector.length} numbers`),
    el('div', { class: 'vector', role: 'img', 'aria-label': `the first ${shown.length} numbers as bars` }, bars),
    el('p', { class: 'explanation' }, `${vector.slice(0, 6).map((value) => value.toFixed(4)).join(', ')}, …`)];
}

const DRAWN = {
  classify: drawClasses,
  tag: drawEntities,
  answer: drawAnswer,
  choose: ({ text, probabilities }, { choices }) => [el('p', { class: 'verdict' }, text),
    barList(choices.map((choice, index) => [choice, probabilities[index]]))],
  fill: drawFills,
  next_sentence: (probability) => barList([['follows', probability], ['does not', 1 - probability]]),
  suggest: (words) => barList(words.map(({ word, probability }) => [word, probability])),
  score: drawScore,
  similar: (matches) => drawRanked(matches, ({ cosine }) => cosine, 'cosine'),
  rerank: (ranked) => drawRanked(ranked, ({ score }) => score, 'score'),
  embed: drawVector,
};

/** The answer to a verb's request as nodes. body: the request. */
export const drawResult = (verb, result, body) => DRAWN[verb](result, body);

/** How alike texts are: a matrix of the cosines of their vectors. */
export function drawSimilarities(texts, vectors) {
  const scale = createScale(matchMedia('(prefers-color-scheme: dark)').matches, 'signed', 1);
  const product = (one, next) => one.reduce((sum, value, index) => sum + value * next[index], 0);
  const name = (index) => (index ? String(index) : 'query');
  const cell = (value) => el('td', { class: 'cosine', style: { background: colourOf(scale, value) } },
    el('span', {}, value.toFixed(2)));
  const rows = vectors.map((one, index) => [el('th', { title: texts[index] }, name(index)),
    ...vectors.map((next) => cell(product(one, next)))]);
  return [el('h3', {}, 'How alike all are'), table(['', ...texts.map((_, index) => name(index))], rows),
    el('ol', { class: 'explanation' }, texts.slice(1).map((line) => el('li', {}, line)))];
}

/** A text in the making: `add(piece)` puts a piece behind it, which tells when chosen what else was likely. */
export function createStreamed() {
  const words = el('p', { class: 'marked', 'aria-live': 'polite' });
  const told = readout('');
  const likely = el('div', {});
  const choose = ({ text, probability, alternatives }) => {
    told.textContent = `“${text}”: ${percent(probability)}; likely here:`;
    likely.replaceChildren(barList(alternatives.map(({ token, probability: share }) => [token, share])));
  };
  const add = (piece) => words.append(piece.alternatives
    ? el('button', { type: 'button', class: 'piece', style: { '--strength': Math.sqrt(piece.probability).toFixed(3) },
      click: () => choose(piece) }, piece.text)
    : piece.text);
  return { nodes: [words, told, likely], add };
}
