// Where things stand, in pixels: pure functions of numbers, without a document. Cells of a matrix, lines between
// tokens, points and labels of a plot. Rows, columns, layers, heads and tokens are counted from 0.

export const ROW_HEIGHT = 22; // of a token beside the lines, as in page.css
const MAX_NAMED_TOKENS = 40; // of more, cells are too small for an SVG rectangle each and for names
const NAME_MARGIN = 84; // for names of 11 letters, left of a matrix and above it
const MAX_LINES = 1500; // more are a grey area, and slow
const MIN_LINE_SHARE = 0.02; // of the largest weight: fainter lines are not seen
const MIN_HIGHLIGHTED_SHARE = 0.01; // of the largest weight, for the lines of one token
const PLOT_PADDING = 14; // around the points of a plot

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const range = (n) => Array.from({ length: n }, (_, index) => index);

// ---- Matrices

/** Sizes of the large matrix of n rows and columns: of a cell, of the margin for names, of the whole. */
export function matrixLayout(n) {
  const named = n <= MAX_NAMED_TOKENS;
  const cell = named ? clamp(Math.floor(480 / n), 14, 30) : Math.max(1, Math.floor(560 / n));
  const margin = named ? NAME_MARGIN : 0;
  return { named, cell, margin, size: margin + n * cell };
}

/** The corners of n × n cells, row by row. */
export function cellRects(n, { cell, margin }) {
  return range(n * n).map((at) => {
    const row = Math.floor(at / n);
    const column = at % n;
    return { row, column, x: margin + column * cell, y: margin + row * cell };
  });
}

/**
 * The cell at a point, or null beside the cells. point: from the corner of the box; box: width and height on the
 * screen; grid: rows, columns, the margin before them, and the width as drawn, where the box shows it in another size.
 */
export function cellAt(point, box, { rows, columns, margin = 0, width = box.width }) {
  const zoom = width / box.width;
  const index = (offset, length, cells) => Math.floor(((offset * zoom - margin) * cells) / (length * zoom - margin));
  const row = index(point.y, box.height, rows);
  const column = index(point.x, box.width, columns);
  return row >= 0 && row < rows && column >= 0 && column < columns ? { row, column } : null;
}

/** Width and height of a cell of a heat map. */
export function heatMapCell(rows, columns, square) {
  const width = clamp(Math.floor(480 / columns), 1, 24);
  return { width, height: square ? width : clamp(Math.floor(420 / rows), 1, 24) };
}

/**
 * A value for each pixel, NaN where no cell of it is visible. Where there are more cells than pixels, a pixel has the
 * largest of its cells: a mean would hide single strong ones.
 */
export function pixelValues(values, rows, columns, isVisible, maxPixels) {
  const height = Math.min(rows, maxPixels);
  const width = Math.min(columns, maxPixels);
  const pixels = new Float32Array(width * height).fill(NaN);
  for (let row = 0; row < rows; row += 1) {
    const start = Math.floor((row * height) / rows) * width;
    for (let column = 0; column < columns; column += 1) {
      if (!isVisible(row, column)) continue;
      const at = start + Math.floor((column * width) / columns);
      const value = values[row * columns + column];
      if (!(Math.abs(pixels[at]) >= Math.abs(value))) pixels[at] = value;
    }
  }
  return { width, height, pixels };
}

// ---- Lines between the tokens that look (left, x = 0) and those that are looked at (right, x = 100)

function line(from, to, share) {
  return { x1: 0, y1: (from + 0.5) * ROW_HEIGHT, x2: 100, y2: (to + 0.5) * ROW_HEIGHT, share };
}

/** The lines of a whole matrix, the strongest first. share: of the largest number, `largest`. */
export function linesBetween({ values, n, isVisible, largest }) {
  const strongest = [];
  values.forEach((value, at) => {
    if (value > largest * MIN_LINE_SHARE && isVisible(Math.floor(at / n), at % n)) strongest.push(at);
  });
  strongest.sort((one, next) => values[next] - values[one]).splice(MAX_LINES);
  return strongest.map((at) => line(Math.floor(at / n), at % n, values[at] / largest));
}

/**
 * What one row looks at and is looked at by: `given` and `received`, a share for each of the n, and the lines to draw,
 * each with its direction.
 */
export function linesOfRow({ values, n, isVisible, largest }, row) {
  const share = (from, to) => (isVisible(from, to) ? Math.max(0, values[from * n + to] / largest) : 0);
  const given = range(n).map((other) => share(row, other));
  const received = range(n).map((other) => share(other, row));
  const lines = range(n).flatMap((other) => [
    received[other] > MIN_HIGHLIGHTED_SHARE && { ...line(other, row, received[other]), direction: 'received' },
    given[other] > MIN_HIGHLIGHTED_SHARE && { ...line(row, other, given[other]), direction: 'given' },
  ]);
  return { given, received, lines: lines.filter(Boolean) };
}

// ---- Plots

/** The least and the largest x and y of points [x, y]. */
export function boundingBox(points) {
  const along = (axis, pick) => points.reduce((best, point) => pick(best, point[axis]), points[0]?.[axis] ?? 0);
  return { low: [along(0, Math.min), along(1, Math.min)], high: [along(0, Math.max), along(1, Math.max)] };
}

/** A function from a point of the bounding box to its pixel in a plot of this size; y grows upwards in the box. */
export function projection({ low, high }, width, height) {
  const along = (value, axis, size) =>
    PLOT_PADDING + ((value - low[axis]) / (high[axis] - low[axis] || 1)) * (size - 2 * PLOT_PADDING);
  return ([x, y]) => [along(x, 0, width), height - along(y, 1, height)];
}

/** Where each point's label begins, [x, y]; undefined where it would cover a point or a label placed before. */
export function placeLabels(points, width, height) {
  const taken = points.map(({ x, y }) => [x - 5, y + 5, 10]);
  return points.map(({ x, y, label }) => {
    const length = label.length * 6.5 + 2; // of letters of 11 pixels
    const spots = [[x + 9, y + 4], [x - 9 - length, y + 4], [x - length / 2, y - 9], [x - length / 2, y + 18]];
    const isInside = ([left, base]) => left >= 0 && left + length <= width && base >= 10 && base <= height;
    const covers = ([left, base]) => taken.some(([otherLeft, otherBase, otherLength]) =>
      left < otherLeft + otherLength && otherLeft < left + length && Math.abs(otherBase - base) < 12);
    const free = spots.find((spot) => isInside(spot) && !covers(spot));
    if (free) taken.push([...free, length]);
    return free;
  });
}

/** Two bars for each token, of the share that it starts an answer and that it ends one; where the tokens' names end. */
export function spanBars(start, end) {
  const [step, height] = [18, 90];
  const largest = Math.max(...start, ...end) || 1;
  const bars = (shares, kind, shift) => shares.map((share, index) => {
    const tall = (share / largest) * (height - 6);
    return { kind, index, share, x: index * step + shift, width: 7, y: height - tall, height: tall };
  });
  return {
    largest,
    bars: [...bars(start, 'start', 1), ...bars(end, 'end', 9)],
    names: start.map((_, index) => ({ x: index * step + 12, y: height + 6 })),
    width: start.length * step + 8,
    height: height + 84, // with the names
  };
}

/** Functions from an index to x and from a value to y, in a line chart of `count` values with room for its labels. */
export function chartAxes(count, [low, high], { width, height }) {
  return {
    left: 34,
    right: width - 10,
    bottom: height - 22,
    x: (index) => 34 + (index / Math.max(1, count - 1)) * (width - 44),
    y: (value) => height - 22 - ((value - low) / (high - low || 1)) * (height - 34),
  };
}
