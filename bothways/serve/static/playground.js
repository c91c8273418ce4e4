// The page: choose a model and what to ask, type, and see the answer; behind tabs the tokens, and the same as code.

import { ask, askForStream, Refusal } from './asking.js';
import { createAttentionView } from './attention.js';
import { el, moveByArrowKeys } from './dom.js';
import { createPredictionsView } from './predictions.js';
import { createStreamed, drawResult, drawSimilarities } from './results.js';
import { createStore, initialState } from './store.js';
import { createTokensView } from './tokens.js';
import { codeFor, VERBS } from './verbs.js';

const KEY = 'bothways-key'; // in the tab's own storage, and nowhere else
const page = document.getElementById('page');
const state = { models: [], model: null, verb: null, inputs: {}, running: null };

const modelCalled = (name) => state.models.find(({ id }) => id === name);
const shownVerbs = (model) => Object.keys(VERBS).filter((verb) => model.verbs.includes(verb));
const values = () => Object.fromEntries(Object.entries(state.inputs).map(([name, { value }]) => [name, value]));
const key = () => sessionStorage.getItem(KEY);

// ---- The parts of the page

const modelSelect = el('select', { id: 'model', change: () => chooseModel(modelSelect.value) });
const facts = el('p', { class: 'explanation' });
const verbButtons = el('div', { class: 'verbs', role: 'group', 'aria-label': 'what to ask' });
const about = el('p', { class: 'explanation' });
const form = el('form', { submit: (event) => { event.preventDefault(); run(); } });
const examples = el('p', { class: 'examples' });
const failure = el('p', { class: 'note', role: 'alert', hidden: true });
const warnings = el('div', {});
const panels = Object.fromEntries(['answer', 'inside', 'code'].map((id) =>
  [id, el('div', { id: `panel-${id}`, role: 'tabpanel', 'aria-labelledby': `tab-${id}` })]));
const tabs = [['answer', 'Answer'], ['inside', 'Tokens and attention'], ['code', 'As code']].map(([id, title]) =>
  el('button', { type: 'button', id: `tab-${id}`, role: 'tab', 'aria-controls': `panel-${id}`,
    click: () => chooseTab(id) }, title));

function chooseTab(id) {
  for (const tab of tabs) {
    const chosen = tab.id === `tab-${id}`;
    tab.setAttribute('aria-selected', chosen);
    tab.tabIndex = chosen ? 0 : -1;
  }
  for (const [name, panel] of Object.entries(panels)) panel.hidden = name !== id;
  if (id === 'inside') lookInside();
}

// ---- What is chosen

function chooseModel(name, verb) {
  state.model = modelCalled(name) ?? state.models[0];
  modelSelect.value = state.model.id;
  const { family, size, task, precision } = state.model;
  facts.textContent = [task, family, size, precision].join(' · ');
  const verbs = shownVerbs(state.model);
  verbButtons.replaceChildren(...verbs.map((shown) => el('button', { type: 'button', 'data-verb': shown,
    click: () => chooseVerb(shown) }, VERBS[shown].title)));
  chooseVerb(verbs.includes(verb) ? verb : verbs[0]);
}

function chooseVerb(verb, given = VERBS[verb].examples[0]) {
  state.verb = verb;
  for (const button of verbButtons.children) button.setAttribute('aria-pressed', button.dataset.verb === verb);
  about.textContent = VERBS[verb].about;
  const isShown = ({ name }) => name !== 'pair' || state.model.reads_pairs !== false;
  const fields = VERBS[verb].fields.filter(isShown);
  state.inputs = Object.fromEntries(fields.map(({ name, rows, number }) => [name, number
    ? el('input', { id: `field-${name}`, type: 'number', min: 0, ...number })
    : el('textarea', { id: `field-${name}`, rows, spellcheck: 'false' })]));
  const button = el('button', { type: 'submit', class: 'run' }, 'Ask');
  form.replaceChildren(...fields.map(({ name, label }) =>
    el('label', { class: 'field' }, el('span', {}, label), state.inputs[name])), button,
  el('span', { class: 'explanation' }, ' or Ctrl + Enter'));
  examples.replaceChildren('Examples: ', ...VERBS[verb].examples.map((example, index) =>
    el('button', { type: 'button', click: () => { fillIn(example); button.click(); } }, String(index + 1))));
  fillIn(given);
  clear();
}

function fillIn(example) {
  const mask = state.model.mask_token ?? '[MASK]';
  const optional = state.model.reads_pairs ? [] : ['pair'];
  for (const [name, value] of Object.entries(example)) {
    if (state.inputs[name] && !optional.includes(name)) state.inputs[name].value = value.replaceAll('[MASK]', mask);
  }
}

function clear() {
  failure.hidden = true;
  warnings.replaceChildren();
  for (const panel of Object.values(panels)) panel.replaceChildren();
}

// ---- Asking

async function run() {
  state.running?.abort();
  const controller = new AbortController();
  state.running = controller;
  const { verb, model } = state;
  clear();
  chooseTab('answer');
  panels.answer.setAttribute('aria-busy', 'true');
  const body = VERBS[verb].request(values());
  showCode(body);
  history.replaceState(null, '', `#${new URLSearchParams({ model: model.id, verb, ...values() })}`);
  try {
    await (VERBS[verb].streamed ? stream : answer)(model.id, verb, body, controller.signal);
  } catch (error) {
    if (error.name !== 'AbortError') show(error);
  } finally {
    panels.answer.removeAttribute('aria-busy');
  }
}

async function answer(model, verb, body, signal) {
  const reply = await ask(`/v1/${verb}`, { model, truncate: true, ...body }, key(), signal);
  panels.answer.replaceChildren(...[drawResult(verb, reply.result, body)].flat(Infinity).filter(Boolean));
  warn(reply.warnings);
  if (verb !== 'similar') return;
  const texts = [body.query, ...body.texts];
  const vectors = await ask('/v1/embed', { model, texts, truncate: true }, key(), signal);
  panels.answer.append(...drawSimilarities(texts, vectors.result));
}

async function stream(model, verb, body, signal) {
  const { nodes, add } = createStreamed();
  const before = verb === 'generate' ? [el('p', { class: 'explanation' }, body.prompt)] : [];
  panels.answer.replaceChildren(...before, ...nodes);
  const request = { model, truncate: true, ...body, ...VERBS[verb].streamFields, stream: true };
  await askForStream(`/v1/${verb}`, request, key(), signal, (name, content) => {
    if (name === 'done') warn(content.warnings);
    else add(content);
  });
}

const warn = (given) => warnings.replaceChildren(...given.map(({ message }) => el('p', { class: 'note' }, message)));

function show(error) {
  failure.hidden = false;
  failure.replaceChildren(error.message, error.id ? ` (request ${error.id})` : '');
  if (error instanceof Refusal && error.status === 401) failure.append(' ', keyField());
}

function keyField() {
  const input = el('input', { type: 'password', 'aria-label': 'API key', autocomplete: 'off' });
  const keep = () => { sessionStorage.setItem(KEY, input.value); start(); };
  return el('span', {}, input, el('button', { type: 'button', click: keep }, 'Use this key'));
}

function showCode(body) {
  const { curl, python } = codeFor(location.origin, state.model.id, state.verb, body);
  const block = (title, code) => [el('h3', {}, title), el('pre', { tabindex: 0 }, code),
    el('button', { type: 'button', click: () => navigator.clipboard.writeText(code) }, 'Copy')];
  panels.code.replaceChildren(...block('Command line', curl), ...block('Python', python));
}

/** Tokens, attention and predictions of the first text, by the views of an explained page. */
async function lookInside() {
  const first = Object.values(state.inputs).find((input) => input.tagName === 'TEXTAREA')?.value.split('\n')[0];
  const pair = state.inputs.pair?.value || state.inputs.context?.value;
  if (!first || panels.inside.childElementCount) return;
  panels.inside.replaceChildren(el('p', { class: 'explanation' }, 'Looking inside …'));
  try {
    const text = pair && state.model.reads_pairs !== false ? { text: first, pair } : first;
    const { running } = state;
    const { result: data } = await ask('/v1/explain', { model: state.model.id, text }, key());
    if (running !== state.running) return; // another question was asked meanwhile
    const store = createStore(initialState(data, matchMedia('(prefers-color-scheme: dark)').matches));
    const notes = data.notes.map((note) => el('p', { class: 'note' }, note));
    const creators = [createTokensView, data.predictions && createPredictionsView, createAttentionView].filter(Boolean);
    const views = creators.map((create) => create(data, store));
    panels.inside.replaceChildren(...notes, ...views.map(({ element }) => element));
    await Promise.all(views.map(({ ready }) => ready));
  } catch (error) {
    panels.inside.replaceChildren(el('p', { class: 'note' }, error.message));
  }
}

// ---- The beginning

function draw() {
  modelSelect.replaceChildren(...state.models.map(({ id }) => el('option', { value: id }, id)));
  const tabList = el('div', { class: 'tabs', role: 'tablist', 'aria-label': 'views of the answer' }, tabs);
  moveByArrowKeys(tabList, tabs);
  page.replaceChildren(
    el('header', {}, el('h1', {}, 'Bothways'), el('p', { class: 'explanation' }, 'A place to try the models of this '
      + 'server. ', el('a', { href: '/docs' }, 'All routes')),
    el('label', { class: 'control' }, el('span', {}, 'Model'), modelSelect), facts),
    el('section', { 'aria-label': 'question' }, verbButtons, about, form, examples),
    el('section', { 'aria-label': 'answer' }, failure, warnings, tabList, Object.values(panels)));
  page.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) run();
  });
}

async function start() {
  try {
    state.models = (await ask('/v1/models', null, key())).data;
  } catch (error) {
    page.replaceChildren(el('h1', {}, 'Bothways'), failure);
    show(error);
    return;
  }
  failure.hidden = true;
  draw();
  const linked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const { model, verb, ...given } = linked;
  chooseModel(model ?? state.models[0]?.id, verb);
  if (verb === state.verb && Object.keys(given).some((name) => state.inputs[name])) {
    for (const input of Object.values(state.inputs)) if (input.tagName === 'TEXTAREA') input.value = '';
    for (const [name, value] of Object.entries(given)) if (state.inputs[name]) state.inputs[name].value = value;
  }
  chooseTab('answer');
  await run();
}

window.bothways = { state, ready: start() };
