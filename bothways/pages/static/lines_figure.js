// Attention as lines: the tokens twice, who looks on the left and at whom on the right.

import { el, moveByArrowKeys, svg } from './dom.js';
import { linesBetween, linesOfRow, ROW_HEIGHT } from './geometry.js';
import { tokenDetails } from './tokens.js';

const lineElement = ({ x1, y1, x2, y2, share }, kind) =>
  svg('line', { x1, y1, x2, y2, class: kind, opacity: Math.min(share, 1).toFixed(3) });

/** A button for each group of the matrix. side: 'from' or 'to'. */
function tokenButtons(data, { groups, names }, side, { point, choose }) {
  return groups.map((group, index) => {
    const { segment, special } = data.tokens[group[0]];
    const chooseThis = () => {
      choose(index);
      point(index); // it may be chosen already, and something else be highlighted
    };
    return el('button', { type: 'button', class: `token segment-${segment}${special ? ' special' : ''}`,
      'data-token': group[0], 'data-side': side, title: group.map((at) => tokenDetails(data, at)).join('\n'),
      focus: chooseThis, click: chooseThis, pointerenter: () => point(index) }, names[index]);
  });
}

/** Scrolls only where the row is out of sight. */
function scrollToRow(columns, row) {
  const top = row * ROW_HEIGHT - columns.scrollTop;
  if (top < 0 || top + ROW_HEIGHT > columns.clientHeight) {
    columns.scrollTop = row * ROW_HEIGHT - columns.clientHeight / 2;
  }
}

/**
 * The figure of a matrix (as `loadMatrix` gives it), and `highlight(row, token)`, which shows the lines of one row;
 * the chosen token is the one that the keyboard comes to first. callbacks: `point(row)`, `choose(row)`, `leave()`.
 */
export function createLinesFigure(data, matrix, callbacks) {
  const { n, groups } = matrix;
  const from = tokenButtons(data, matrix, 'from', callbacks);
  const to = tokenButtons(data, matrix, 'to', callbacks);
  const all = svg('g', { class: 'faint' }, linesBetween(matrix).map((line) => lineElement(line, 'any')));
  const highlighted = svg('g');
  const height = n * ROW_HEIGHT;
  const drawing = svg('svg', { viewBox: `0 0 100 ${height}`, preserveAspectRatio: 'none', height,
    'aria-hidden': 'true' }, all, highlighted);
  const columns = el('div', { class: 'lines', pointerleave: callbacks.leave },
    el('div', { class: 'column' }, from), drawing, el('div', { class: 'column' }, to));
  moveByArrowKeys(columns.firstChild, from);
  moveByArrowKeys(columns.lastChild, to);
  const caption = el('figcaption', {}, 'Left: who looks. Right: at whom. Stronger line: more.');

  function highlight(row, token) {
    const { given, received, lines } = linesOfRow(matrix, row);
    groups.forEach((group, index) => {
      to[index].style.setProperty('--strength', given[index].toFixed(3));
      from[index].style.setProperty('--strength', received[index].toFixed(3));
      for (const button of [from[index], to[index]]) {
        button.classList.toggle('active', index === row);
        button.tabIndex = group.includes(token) ? 0 : -1;
      }
    });
    highlighted.replaceChildren(...lines.map((line) => lineElement(line, line.direction)));
    scrollToRow(columns, row);
  }

  return { figure: el('figure', { class: 'between' }, caption, columns), highlight };
}
