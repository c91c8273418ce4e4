// Numbers of attention: the matrix that is chosen, its tokens grouped to words, and one token's attention worked out.
// T tokens, A heads, D numbers of a query; a matrix is T × T, row by row: row i is where token i looks.

import { decompressArray } from './arrays.js';
import { createScale } from './colours.js';
import { range } from './geometry.js';

/** Indices of tokens, grouped: those of one word together where `mergeWords`, otherwise each by itself. */
export function groupTokens(tokens, mergeWords) {
  const groups = [];
  tokens.forEach(({ word, segment }, index) => {
    const group = groups.at(-1);
    const first = group && tokens[group[0]];
    if (mergeWords && group && word >= 0 && first.word === word && first.segment === segment) group.push(index);
    else groups.push([index]);
  });
  return groups;
}

/** The matrix of one head of `[A, T, T]`. */
export const matrixOfHead = (heads, head, T) => heads.subarray(head * T * T, (head + 1) * T * T);

/** The mean matrix of `[A, T, T]`. */
export function meanOfHeads(heads, T) {
  const mean = new Float32Array(T * T);
  const A = heads.length / mean.length;
  heads.forEach((value, at) => (mean[at % mean.length] += value / A));
  return mean;
}

/**
 * A matrix of groups from one of tokens. A word gets what its pieces get and looks as its pieces look on average;
 * scores do not add up, so they are averaged, those that the mask hides (`isMasked`, of two tokens) left out.
 */
export function mergeMatrix(matrix, groups, T, isScores, isMasked) {
  const merged = new Float32Array(groups.length ** 2);
  groups.forEach((from, row) => groups.forEach((to, column) => {
    let sum = 0;
    let count = 0;
    for (const i of from) for (const j of to) {
      if (isScores && isMasked(i, j)) continue;
      sum += matrix[i * T + j];
      count += 1;
    }
    merged[row * groups.length + column] = count ? sum / (isScores ? count : from.length) : 0;
  }));
  return merged;
}

/** The largest size of a number that is visible, 1 where there is none. */
export function largestVisible(values, n, isVisible) {
  let largest = 0;
  for (let at = 0; at < values.length; at += 1) {
    const size = Math.abs(values[at]);
    if (size > largest && isVisible(Math.floor(at / n), at % n)) largest = size;
  }
  return largest || 1;
}

export const isOfHeads = ({ view }) => view === 'head' || view === 'average';
export const isScores = (chosen) => chosen.numbers === 'scores' && isOfHeads(chosen);

/** The chosen matrix of tokens, or null where the page does not have it. */
async function chosenMatrix(reading, chosen, T) {
  const { layer, head, view } = chosen;
  if (!isOfHeads(chosen)) return reading[view] && decompressArray(reading[view][layer]);
  const heads = await decompressArray((isScores(chosen) ? reading.scores : reading.weights)[layer]);
  return view === 'head' ? matrixOfHead(heads, head, T) : meanOfHeads(heads, T);
}

/**
 * What the large matrix shows of a reading: `values`, n × n of the groups; their names; of a row and a column whether
 * the mask hides them (`isMasked`) and whether they are shown (`isVisible`); `largest` and the scale of the colours.
 * null where the page does not have it. chosen: the fields of the store.
 */
export async function loadMatrix({ runs: readings, tokens, words }, chosen, readingIndex) {
  const reading = readings[readingIndex];
  const T = tokens.length;
  const matrix = await chosenMatrix(reading, chosen, T);
  if (!matrix) return null;
  const groups = groupTokens(tokens, chosen.mergeWords);
  const n = groups.length;
  const isMasked = (row, column) => reading.causal && column > row;
  const values = chosen.mergeWords ? mergeMatrix(matrix, groups, T, isScores(chosen), isMasked) : matrix;
  const firsts = groups.map(([index]) => tokens[index]);
  const letters = firsts.map(({ segment }) => 'ab'[segment]);
  const isChosen = (row, column) => chosen.segments === 'all' || letters[row] + letters[column] === chosen.segments;
  const isVisible = (row, column) => !isMasked(row, column) && isChosen(row, column);
  const largest = largestVisible(values, n, isVisible);
  const scale = createScale(chosen.dark, isScores(chosen) ? 'signed' : 'sequential', largest);
  const names = firsts.map(({ token, word }) => (chosen.mergeWords && words[word]) || token);
  return { reading, readingIndex, chosen, groups, names, n, values, isMasked, isVisible, largest, scale };
}

/** The eight largest visible numbers of a row, or of a column: [other, value], the largest first. */
export function strongestOf({ values, n, isVisible }, index, ofRow) {
  const cells = range(n).map((other) => (ofRow ? [index, other] : [other, index]));
  return cells.map(([row, column], other) => [other, values[row * n + column], isVisible(row, column)])
    .filter(([, , visible]) => visible)
    .map(([other, value]) => [other, value])
    .sort((one, next) => next[1] - one[1])
    .slice(0, 8);
}

/**
 * One token's attention in one head, from queries, keys and values `[A, T, D]`: its query; the products of it with
 * every key; `scaled` by √D; `masked`, -Infinity where the mask hides; the softmax; and the values mixed by it.
 */
export function attentionSteps({ queries, keys, values }, { T, D, head, token, causal }) {
  const vector = (all, index) => all.subarray((head * T + index) * D, (head * T + index + 1) * D);
  const query = vector(queries, token);
  const products = range(T).map((index) => vector(keys, index).reduce((sum, value, at) => sum + value * query[at], 0));
  const scaled = products.map((product) => product / Math.sqrt(D));
  const masked = scaled.map((score, index) => (causal && index > token ? -Infinity : score));
  const highest = Math.max(...masked);
  const powers = masked.map((score) => Math.exp(score - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  const weights = powers.map((power) => power / total);
  const mixed = range(D).map((at) =>
    weights.reduce((sum, weight, index) => sum + weight * vector(values, index)[at], 0));
  return { query, products, scaled, masked, weights, mixed };
}
