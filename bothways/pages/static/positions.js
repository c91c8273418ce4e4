// The section of positions: the model's table, the sinusoidal one, and how alike positions are.

import { decompressArray } from './arrays.js';
import { heatMap } from './charts.js';
import { createScale, largestOf } from './colours.js';
import { el, section } from './dom.js';

export function createPositionsView({ positions }, store) {
  const { kind, table: learned, sinusoidal, similarity, similarity_rows: rows } = positions;
  const place = el('div', { class: 'row' }, '…');
  const element = section('positions', 'Positions',
    'What tells the model where a token stands: a row of numbers for each position. Alike ones show as a strong '
    + 'diagonal.',
    place);
  const position = (index) => `position ${index}`;
  const comparedPosition = (index) => position(rows[index]);
  const columnName = (index) => `column ${index}`;

  async function heat(compressed, options) {
    const values = await decompressArray(compressed);
    const scale = createScale(store.state.dark, 'signed', largestOf(values));
    return heatMap(values, compressed.shape, { scale, ...options });
  }

  async function draw() {
    place.replaceChildren(...await Promise.all([
      heat(learned, { title: `The model’s own (${kind})`, rowName: position, columnName }),
      heat(sinusoidal, { title: 'Sines and cosines, for comparison', rowName: position, columnName }),
      heat(similarity, { title: 'How alike two positions are (cosine)', rowName: comparedPosition,
        columnName: comparedPosition, square: true }),
    ]));
  }

  return { element, ready: draw() };
}
