// The page: sections in order, drawn when their data is there.

// ---- The page

function drawHead() {
  const { model, text } = data;
  const many = (value) => Number(value).toLocaleString('en');
  const facts = [model.name, model.head, `${model.layers} layers of ${model.heads} heads`, `${model.hidden_size} wide`,
    `${many(model.vocab_size)} pieces`, model.parameters && `${many(model.parameters)} parameters`,
    model.causal ? 'reads left to right' : 'reads both ways'];
  page.append(el('header', {}, el('h1', {}, data.title), how(facts.filter(Boolean).join(' · ')),
    [text?.a, text?.b].filter(Boolean).map((one) => el('blockquote', {}, one)),
    (data.notes ?? []).map((note) => el('p', { class: 'note' }, note))));
}

async function guarded(id, draw) {
  try {
    await draw();
  } catch (error) {
    const failure = el('p', { class: 'note' }, `This part could not be drawn: ${error.message}`);
    (document.getElementById(id) ?? page).append(failure);
  }
}

async function drawPage() {
  parts.watcher?.disconnect();
  parts = {};
  page.replaceChildren();
  drawHead();
  const sections = [
    ['tokens', T, drawTokens],
    ['attention', runs.some((run) => run.weights || run.rollout), drawAttention],
    ['steps', runs.some(isStepped), drawStepsSection],
    ['embeddings', data.embeddings, drawEmbeddings],
    ['positions', data.positions, drawPositions],
    ['predictions', data.predictions, drawPredictions],
    ['checkpoints', data.checkpoints?.length, drawCheckpoints],
  ].filter(([, there]) => there);
  const done = sections.map(([id, , draw]) => guarded(id, draw)); // all start in order, so the sections stand in order
  page.firstChild.append(el('nav', { 'aria-label': 'sections' }, sections.map(([id]) =>
    el('a', { href: `#${id}` }, document.getElementById(id)?.querySelector('h2').textContent ?? id))));
  await Promise.all(done);
}

document.title = data.title;
window.bothways = { unpack, data, ready: drawPage() };
darkness.addEventListener('change', () => {
  dark = darkness.matches;
  drawPage();
});
