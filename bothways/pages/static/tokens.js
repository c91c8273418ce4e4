// The view of tokens: every piece with its number in the vocabulary and its position, pieces of a word joined.

import { colourKey, el, moveByArrowKeys, section } from './dom.js';
import { groupTokens } from './matrices.js';

/** What is told of a token in a tooltip. */
export function tokenDetails({ tokens, words }, index) {
  const { token, id, position, segment, word, special, unknown } = tokens[index];
  const facts = [`“${token}”`, `token ${index}`, `id ${id}`, `position ${position}`, `segment ${'AB'[segment]}`];
  if (word >= 0) facts.push(`of the word “${words[word]}”`);
  if (special) facts.push('special');
  if (unknown) facts.push('not in the vocabulary');
  return facts.join(', ');
}

export function createTokensView(data, store) {
  const { tokens, text } = data;
  const chips = tokens.map(({ token, id, position, segment, special, unknown }, index) => {
    const kinds = ['chip', `segment-${segment}`, special && 'special', unknown && 'unknown'];
    const choose = () => store.set({ token: index });
    return el('button', { type: 'button', class: kinds.filter(Boolean).join(' '), title: tokenDetails(data, index),
      focus: choose, click: choose }, el('span', {}, token), el('small', {}, `${id} · ${position}`));
  });
  const words = groupTokens(tokens, true).map((group) =>
    el('span', { class: 'joined' }, group.map((index) => chips[index])));
  const list = el('div', { class: 'chips' }, words);
  moveByArrowKeys(list, chips);
  const mark = () => chips.forEach((chip, index) => {
    chip.setAttribute('aria-pressed', index === store.state.token);
    chip.tabIndex = index === store.state.token ? 0 : -1;
  });
  mark();
  store.subscribe(['token'], mark);
  const element = section('tokens', 'Tokens',
    'The pieces the model reads, each with its number in the vocabulary and its position; joined pieces are one word.',
    list, text.b && colourKey([['A, the first text', 'var(--a)'], ['B, the second text', 'var(--b)']]));
  return { element };
}
