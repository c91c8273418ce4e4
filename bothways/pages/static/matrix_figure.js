// One matrix of attention, large: cells with names, or pixels where there are too many; a cross marks a row and column.

import { legend, paint } from './charts.js';
import { colourOf } from './colours.js';
import { cellUnder, el, svg } from './dom.js';
import { cellRects, matrixLayout } from './geometry.js';
import { isScores } from './matrices.js';

export const MINUS_INFINITY = '−∞';
const VIEW_NAMES = {
  average: 'average of its heads',
  rollout: 'rollout: attention through all layers up to this one',
  gradient: 'gradient-weighted: attention that spoke for what was decided',
};

const titleOf = ({ reading, chosen: { layer, head, view } }) =>
  `${reading.name}, layer ${layer + 1}, ${view === 'head' ? `head ${head + 1}` : VIEW_NAMES[view]}`;

function cellText({ chosen, values, n, isMasked, isVisible }, { row, column }) {
  if (isMasked(row, column)) return isScores(chosen) ? MINUS_INFINITY : 'not seen';
  return isVisible(row, column) ? values[row * n + column].toFixed(3) : 'left out';
}

function hatching(id) {
  const lines = svg('path', { d: 'M0 6L6 0', class: 'hatch' });
  return svg('defs', {}, svg('pattern', { id, width: 6, height: 6, patternUnits: 'userSpaceOnUse' }, lines));
}

function cells({ chosen, values, n, isMasked, isVisible, scale }, hatchId, layout) {
  const size = layout.cell - 1; // a gap of one pixel
  return cellRects(n, layout).flatMap(({ row, column, x, y }) => {
    const value = values[row * n + column];
    const masked = isMasked(row, column);
    const visible = isVisible(row, column);
    const fill = masked ? `url(#${hatchId})` : visible ? colourOf(scale, value) : 'none';
    const rect = svg('rect', { x, y, width: size, height: size, fill, class: masked ? 'masked' : null,
      'data-row': row, 'data-column': column, 'data-value': visible ? value.toFixed(4) : null });
    const place = { x: x + layout.cell / 2, y: y + layout.cell * 0.65, class: 'infinite' };
    return masked && isScores(chosen) ? [rect, svg('text', place, MINUS_INFINITY)] : [rect];
  });
}

function nameTexts(names, { cell, margin }) {
  const short = (name) => (name.length > 11 ? `${name.slice(0, 10)}…` : name);
  return names.flatMap((name, index) => {
    const middle = margin + (index + 0.5) * cell;
    return [svg('text', { x: margin - 5, y: middle + 4, 'text-anchor': 'end' }, short(name)),
      svg('text', { transform: `translate(${middle + 4} ${margin - 5}) rotate(-90)` }, short(name))];
  });
}

/** The rectangles around a row and a column, and a function that moves them to an index. */
function createCross(n, { cell, margin }) {
  const row = svg('rect', { class: 'mark', x: margin, width: n * cell, height: cell });
  const column = svg('rect', { class: 'mark', y: margin, width: cell, height: n * cell });
  const mark = (index) => {
    row.setAttribute('y', margin + index * cell);
    column.setAttribute('x', margin + index * cell);
  };
  return { rects: [row, column], mark };
}

function createBoard(matrix, id, layout) {
  const { n, names, reading } = matrix;
  const { size } = layout;
  const board = svg('svg', { viewBox: `0 0 ${size} ${size}`, width: size, height: size, role: 'img',
    'aria-label': `${titleOf(matrix)}: rows look at columns` });
  const box = el('div', { class: 'board', style: { width: `${size}px`, height: `${size}px` } });
  if (layout.named) {
    const hatchId = `${id}-hatch`;
    board.append(hatching(hatchId), ...cells(matrix, hatchId, layout), ...nameTexts(names, layout));
  } else {
    const canvas = el('canvas', { class: reading.causal ? 'hatched' : '' });
    paint(canvas, matrix.values, [n, n], matrix.scale, { isVisible: matrix.isVisible });
    box.append(canvas);
  }
  box.append(board);
  return { board, box };
}

/**
 * The figure of a matrix (as `loadMatrix` gives it), and `mark`, which marks the row and column of a group. On the way
 * of the pointer it calls `point(row)`, `choose(row)` on a click, and `leave()`.
 */
export function createMatrixFigure(matrix, id, { point, choose, leave }) {
  const { n, names, chosen, readingIndex } = matrix;
  const layout = matrixLayout(n);
  const { board, box } = createBoard(matrix, id, layout);
  const cross = createCross(n, layout);
  board.append(...cross.rects);
  const readout = el('output', { class: 'readout' }, 'Row: who looks. Column: at whom.');
  const grid = { rows: n, columns: n, margin: layout.margin, width: layout.size };
  board.addEventListener('pointermove', (event) => {
    const cell = cellUnder(event, board, grid);
    if (!cell) return;
    readout.textContent = `${names[cell.row]} → ${names[cell.column]}: ${cellText(matrix, cell)}`;
    point(cell.row);
  });
  board.addEventListener('click', (event) => {
    const cell = cellUnder(event, board, grid);
    if (cell) choose(cell.row);
  });
  board.addEventListener('pointerleave', leave);
  const figure = el('figure', { id, 'data-layer': chosen.layer, 'data-head': chosen.head, 'data-reading': readingIndex,
    'data-view': chosen.view, 'data-numbers': isScores(chosen) ? 'scores' : 'weights' },
  el('figcaption', {}, titleOf(matrix)), el('div', { class: 'scroll' }, box), legend(matrix.scale), readout);
  return { figure, mark: cross.mark };
}
