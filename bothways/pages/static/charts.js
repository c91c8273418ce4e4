// Charts: numbers painted as pixels, heat maps, points on a plane, curves.

import { channelsOf, gradientOf } from './colours.js';
import { cellUnder, colourKey, el, stateName, svg } from './dom.js';
import {
  boundingBox, chartAxes, heatMapCell, pixelValues, placeLabels, projection,
} from './geometry.js';

/** The width that a chart may have on this screen. */
export const chartWidth = () => Math.max(280, Math.min(document.getElementById('page').clientWidth - 32, 720));

/** Paint numbers, row by row, on a canvas of a pixel each, or of `maxPixels` a side; invisible ones stay clear. */
export function paint(canvas, values, [rows, columns], scale, { isVisible = () => true, maxPixels = Infinity } = {}) {
  const { width, height, pixels } = pixelValues(values, rows, columns, isVisible, maxPixels);
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  pixels.forEach((value, at) => {
    if (!Number.isNaN(value)) image.data.set([...channelsOf(scale, value), 255], at * 4);
  });
  canvas.getContext('2d').putImageData(image, 0, 0);
}

export function legend(scale) {
  const low = scale.kind === 'signed' ? (-scale.largest).toFixed(2) : '0';
  const colours = el('span', { style: { background: gradientOf(scale) } });
  return el('div', { class: 'legend' }, low, colours, scale.largest.toFixed(2));
}

/** A heat map whose numbers are read by pointing. rowName, columnName: of an index; square: cells as high as wide. */
export function heatMap(values, [rows, columns], { scale, rowName, columnName, title, square = false }) {
  const cell = heatMapCell(rows, columns, square);
  const canvas = el('canvas', { class: 'heat', role: 'img', 'aria-label': title,
    style: { width: `${cell.width * columns}px`, height: `${cell.height * rows}px` } });
  const readout = el('output', { class: 'readout' }, 'Point at a cell to read its number.');
  canvas.addEventListener('pointermove', (event) => {
    const at = cellUnder(event, canvas, { rows, columns });
    if (!at) return;
    const value = values[at.row * columns + at.column].toFixed(3);
    readout.textContent = `${rowName(at.row)}, ${columnName(at.column)}: ${value}`;
  });
  paint(canvas, values, [rows, columns], scale);
  const scroll = el('div', { class: 'scroll' }, canvas);
  return el('figure', {}, el('figcaption', {}, title), scroll, legend(scale), readout);
}

const joined = (points) => points.map((point) => point.join(',')).join(' ');

/**
 * Points on a plane. points: { at: [x, y], label, title, colour, strong }, of which strong ones get their labels first.
 * trails: { colour, path: [[x, y], …] }, behind the points. box: what the plot shows, by default all points.
 */
export function scatter(points, { label, trails = [], width = chartWidth(), box }) {
  const height = Math.round(width * 0.6);
  const toPixel = projection(box ?? boundingBox(points.map(({ at }) => at)), width, height);
  const placed = points.map((point) => {
    const [x, y] = toPixel(point.at);
    return { ...point, x, y };
  });
  placed.sort((one, next) => Boolean(next.strong) - Boolean(one.strong));
  const labels = placeLabels(placed, width, height);
  const trail = ({ colour, path }) =>
    svg('polyline', { class: 'trail', stroke: colour, points: joined(path.map(toPixel)) });
  const dot = ({ x, y, label: name, title, colour, strong }, index) => {
    const [left, base] = labels[index] ?? [];
    return svg('g', { class: strong ? 'strong' : null },
      svg('circle', { cx: x, cy: y, r: strong ? 6 : 3.5, style: { fill: colour } }, svg('title', {}, title)),
      labels[index] && svg('text', { x: left, y: base, style: { fill: colour } }, name));
  };
  const viewBox = `0 0 ${width} ${height}`;
  return svg('svg', { class: 'plot', viewBox, width, height, role: 'img', 'aria-label': label },
    trails.map(trail), placed.map(dot));
}

/**
 * Curves over the states of a model. curves: { name, values, colour }; ends: the least and the largest value to show;
 * state: where a line stands, whose values are told below.
 */
export function stateChart(title, curves, ends, state) {
  const width = Math.min(chartWidth(), 340);
  const height = 190;
  const last = curves[0].values.length - 1;
  const { x, y, left, right, bottom } = chartAxes(last + 1, ends, { width, height });
  const [low, high] = ends;
  const grid = [low, (low + high) / 2, high].map((value) => [
    svg('line', { class: 'grid', x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg('text', { x: left - 4, y: y(value) + 4, 'text-anchor': 'end' }, value.toFixed(2)),
  ]);
  const curve = ({ values, colour }) => svg('polyline', { class: 'curve', style: { stroke: colour },
    points: joined(values.map((value, index) => [x(index), y(value)])) });
  const viewBox = `0 0 ${width} ${height}`;
  return el('figure', {}, el('figcaption', {}, title),
    svg('svg', { class: 'plot', viewBox, width, height, role: 'img', 'aria-label': title }, grid,
      svg('line', { class: 'now', x1: x(state), x2: x(state), y1: 8, y2: bottom }),
      svg('text', { x: left, y: height - 6 }, stateName(0)),
      svg('text', { x: right, y: height - 6, 'text-anchor': 'end' }, stateName(last)),
      curves.map(curve)),
    colourKey(curves.map(({ name, colour, values }) => [`${name} ${values[state].toFixed(3)}`, colour])));
}
