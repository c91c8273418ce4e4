// The page: what it is about, then its sections in order. Each is a view, `createView(data, store)`, that gives an
// `element` and, where its numbers come later, `ready`, a promise. The page is made anew when the reader changes
// between light and dark; what was chosen stays.

import { createAttentionView } from './attention.js';
import { createCheckpointsView } from './checkpoints.js';
import { el, explanation } from './dom.js';
import { createEmbeddingsView } from './embeddings.js';
import { createPositionsView } from './positions.js';
import { createPredictionsView } from './predictions.js';
import { createStepsView } from './steps.js';
import { createStore, initialState } from './store.js';
import { createTokensView } from './tokens.js';

const VIEWS = [
  ['predictions', createPredictionsView, ({ predictions }) => predictions],
  ['tokens', createTokensView, () => true],
  ['attention', createAttentionView, () => true],
  ['steps', createStepsView, ({ runs: readings }) => readings[0].queries],
  ['embeddings', createEmbeddingsView, () => true],
  ['positions', createPositionsView, ({ positions }) => positions],
  ['checkpoints', createCheckpointsView, ({ checkpoints }) => checkpoints],
];

function createHeader({ model, text, notes }) {
  const inWords = (count) => count.toLocaleString('en');
  const facts = [`${model.layers} layers of ${model.heads} heads`, `${model.hidden_size} wide`,
    `${inWords(model.vocab_size)} pieces`, `${inWords(model.parameters)} parameters`,
    model.causal ? 'reads left to right' : 'reads both ways'];
  return el('header', {}, el('h1', {}, `${model.name}: a model that ${model.head}`),
    [text.a, text.b].filter(Boolean).map((part) => el('blockquote', {}, part)), explanation(facts.join(' · ')),
    notes.map((note) => el('p', { class: 'note' }, note)));
}

function createNavigation(ids) {
  const titleOf = (id) => document.getElementById(id)?.querySelector('h2').textContent ?? id;
  return el('nav', { 'aria-label': 'sections' }, ids.map((id) => el('a', { href: `#${id}` }, titleOf(id))));
}

/** A view that fails leaves a note in its section, or in its place; the other sections stay. */
async function appendView(page, id, create) {
  try {
    const { element, ready } = create();
    page.append(element);
    await ready;
  } catch (error) {
    const failure = el('p', { class: 'note' }, `This part could not be drawn: ${error.message}`);
    (document.getElementById(id) ?? page).append(failure);
  }
}

async function drawPage(page, data, store) {
  const header = createHeader(data);
  page.replaceChildren(header);
  const views = VIEWS.filter(([, , isThere]) => isThere(data));
  const done = views.map(([id, createView]) => appendView(page, id, () => createView(data, store)));
  header.append(createNavigation(views.map(([id]) => id)));
  await Promise.all(done);
}

function start() {
  const page = document.getElementById('page');
  const data = JSON.parse(document.getElementById('data').textContent);
  const scheme = matchMedia('(prefers-color-scheme: dark)');
  let store = createStore(initialState(data, scheme.matches));
  document.title = data.title;
  scheme.addEventListener('change', () => {
    store = createStore({ ...store.state, dark: scheme.matches });
    drawPage(page, data, store);
  });
  window.bothways = { data, ready: drawPage(page, data, store) };
}

start();
