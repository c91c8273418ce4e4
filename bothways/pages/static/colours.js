// Colours of numbers: a sequential scale for weights (by their square root, so that small ones show) and a signed one.

import { clamp, range } from './geometry.js';

const STOPS = {
  light: {
    sequential: ['#f3f6fb', '#a3cbe6', '#3a83c0', '#08306b'],
    signed: ['#8c2d04', '#f5a567', '#f6f6f4', '#86b9de', '#08427f'],
  },
  dark: {
    sequential: ['#1a202a', '#1f4f7c', '#4d9fdb', '#e8f5ff'],
    signed: ['#ffc396', '#a9521b', '#1d2129', '#2b6cab', '#b5dcff'],
  },
};
const LEVELS = 256; // of a channel
const ramps = new Map(); // by stops, made when first used

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function rampOf(stops) {
  if (!ramps.has(stops)) {
    const parts = stops.map(channels);
    ramps.set(stops, range(LEVELS).map((level) => {
      const place = (level / (LEVELS - 1)) * (parts.length - 1);
      const left = Math.min(Math.floor(place), parts.length - 2);
      return parts[left].map((from, channel) => Math.round(from + (place - left) * (parts[left + 1][channel] - from)));
    }));
  }
  return ramps.get(stops);
}

/** A scale for numbers from 0 to `largest` (kind 'sequential'), or from -largest to largest ('signed'). */
export function createScale(dark, kind, largest) {
  const stops = STOPS[dark ? 'dark' : 'light'][kind];
  return { kind, largest, stops, ramp: rampOf(stops) };
}

/** The largest of the numbers' sizes, 1 of none and of zeros. */
export const largestOf = (values) => values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) || 1;

/** A number's colour, [red, green, blue]. */
export function channelsOf({ kind, largest, ramp }, value) {
  const share = value / largest;
  const place = kind === 'signed' ? (clamp(share, -1, 1) + 1) / 2 : Math.sqrt(clamp(share, 0, 1));
  return ramp[Math.round((LEVELS - 1) * place)];
}

/** A number's colour as CSS has it. */
export const colourOf = (scale, value) => `rgb(${channelsOf(scale, value).join(' ')})`;

/** The whole scale as a CSS gradient from its least number to its largest. */
export function gradientOf(scale) {
  const samples = range(9).map((step) => colourOf({ ...scale, largest: 8 }, step));
  return `linear-gradient(to right, ${(scale.kind === 'signed' ? scale.stops : samples).join(', ')})`;
}

/** Colours that differ for each index, light or dark as the page is (`--point` in page.css). */
export const hueOf = (index) => `hsl(${(210 + index * 137.5) % 360} 65% var(--point))`;
