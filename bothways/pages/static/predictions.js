// The section of predictions: what the model's head makes of the text, what spoke for it, and what each layer would
// say.

import {
  barCell, barList, card, colourKey, el, explanation, numberCell, pairTexts, section, stateName, svg, table,
} from './dom.js';
import { spanBars } from './geometry.js';
import { groupTokens } from './matrices.js';

/** The token at a position, with the position. */
export const placeName = (tokens, position) => `${tokens[position].token} at position ${position}`;

/** Words with their scores, which are the sums of their pieces': they share out the same difference. */
function scoredWords({ tokens, words }, scores) {
  return groupTokens(tokens, true).map((group) => {
    const { token, word } = tokens[group[0]];
    return { name: words[word] ?? token, score: group.reduce((sum, index) => sum + scores[index], 0) };
  });
}

function attributionCard(data, { of, method, scores: ofTokens }) {
  const scored = scoredWords(data, ofTokens);
  const scores = scored.map(({ score }) => score);
  const largest = Math.max(...scores.map(Math.abs)) || 1;
  const readout = el('output', { class: 'readout' }, 'Point at a word to read its number.');
  const shaded = scored.map(({ name, score }) => el('span', { class: score < 0 ? 'against' : 'for',
    title: score.toFixed(4), style: { '--strength': (Math.abs(score) / largest).toFixed(3) },
    pointerenter: () => { readout.textContent = `${name}: ${score.toFixed(4)}`; } }, name));
  const ranked = scored.map(({ name, score }) => [name, score]).sort((one, next) => next[1] - one[1]);
  const spokeFor = ranked.filter(([, score]) => score > 0).slice(0, 4);
  const spokeAgainst = ranked.filter(([, score]) => score < 0).slice(-4).reverse();
  const listed = (pairs) => pairTexts(pairs).join(', ') || 'nothing';
  return card(`What spoke for “${of}”`, explanation(`By ${method}: blue spoke for it, orange against it.`),
    el('p', { class: 'attribution' }, shaded), readout,
    el('p', {}, `Most for: ${listed(spokeFor)}. `, `Most against: ${listed(spokeAgainst)}.`));
}

function spanCard(tokens, { start, end, answer, probability }) {
  const { bars, names, width, height, largest } = spanBars(start, end);
  const rects = bars.map(({ kind, index, share, ...place }) => svg('rect', { class: kind, ...place },
    svg('title', {}, `${tokens[index].token}: ${kind} ${share.toFixed(4)}`)));
  const texts = tokens.map(({ token }, index) => svg('text', { 'text-anchor': 'end',
    transform: `translate(${names[index].x} ${names[index].y}) rotate(-90)` }, token.slice(0, 12)));
  const chart = svg('svg', { class: 'plot', width, height, role: 'img',
    'aria-label': 'where the answer starts and ends' }, rects, texts);
  return card('The answer in the text',
    el('p', {}, el('strong', {}, answer || 'no answer'), ` with probability ${probability.toFixed(3)}`),
    el('div', { class: 'scroll' }, chart), colourKey([['starts here', 'var(--a)'], ['ends here', 'var(--b)']]),
    explanation(`The tallest bar is ${largest.toFixed(3)}.`));
}

function lensCard(tokens, lens) {
  const cell = (best) => el('td', { class: 'lens', title: pairTexts(best).join('\n'),
    style: { '--strength': best[0][1].toFixed(3) } }, best[0][0]);
  const rows = lens.map((row, state) => [el('th', {}, stateName(state)), ...row.map(cell)]).reverse();
  return card('What each layer would say',
    explanation('Every layer’s state read as if it were the last: its best word for each token, stronger where it is '
      + 'surer.'),
    table(['', ...tokens.map(({ token }) => token)], rows, { class: 'lenses' }));
}

function tagCard(tags) {
  const row = ({ word, labels: [[label, share], ...others] }) =>
    [word, label, numberCell(share, 3), barCell(share), pairTexts(others.slice(0, 3)).join(', ')];
  return card('A tag for each word', table(['word', 'tag', '', '', 'else'], tags.map(row)));
}

export function createPredictionsView(data) {
  const { tokens, predictions } = data;
  const { fills, next, samples, score, classes, attribution, tags, span, lens } = predictions;
  const cards = (fills ?? []).map(({ position, alternatives }) =>
    card(placeName(tokens, position), barList(alternatives)));
  if (next) cards.push(card('The next word', barList(next)));
  const items = (texts) => el('ul', {}, texts.map((text) => el('li', {}, text)));
  if (samples) cards.push(card('Drawn from it, token by token', items(samples)));
  if (score !== undefined) cards.push(card('The score', el('p', {}, score.toFixed(3))));
  if (classes) cards.push(card('The class', barList(classes)));
  const wide = [attribution && attributionCard(data, attribution), tags && tagCard(tags),
    span && spanCard(tokens, span), lens && lensCard(tokens, lens)];
  const element = section('predictions', 'Predictions',
    'What the model makes of the text: longer bars are more probable.', el('div', { class: 'row' }, cards), wide);
  return { element };
}
