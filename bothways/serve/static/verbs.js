// What the page can ask: of each verb its fields, its request, and examples that show something at once.

const text = (name, label, rows = 3) => ({ name, label, rows });
const lines = (name, label) => ({ name, label, rows: 5, isLines: true });
const number = (name, label, value, step, max) => ({ name, label, number: { value, step, max } });

const linesOf = (value) => value.split('\n').map((line) => line.trim()).filter(Boolean);
const sampling = [number('max_tokens', 'Tokens at most', 40, 1, 1000),
  number('temperature', 'Temperature', 0.8, 0.1, 5)];
const HELPDESK = 'the internet is slow\nmy bill is wrong\nthe router has no light\nhow do I change my password';

/** Fields named `pair` are shown of models that read pairs. `streamed`: the answer comes piece by piece. */
export const VERBS = {
  classify: {
    title: 'Classify', about: 'The labels of a text, the likeliest first.',
    fields: [text('texts', 'Text'), text('pair', 'Second text of a pair')],
    request: ({ texts, pair }) => ({ texts: pair ? { text: texts, pair } : texts }),
    examples: [{ texts: 'The router has no light.', pair: 'It has no power.' },
      { texts: 'I was charged twice this month.', pair: 'There is nothing wrong with the bill.' }],
  },
  tag: {
    title: 'Tag', about: 'The entities of a text. Choose one to read its probability.',
    fields: [text('texts', 'Text', 4)],
    request: ({ texts }) => ({ texts }),
    examples: [{ texts: 'Anna Berg moved from Oslo to Bergen in May and works for Telenor.' },
      { texts: 'Please call Tom Miller in London about order 4711.' }],
  },
  answer: {
    title: 'Answer', about: 'Where a text answers a question, or that it does not.',
    fields: [text('question', 'Question', 1), text('context', 'Text that may hold the answer', 6)],
    request: ({ question, context }) => ({ question, context }),
    examples: [{ question: 'What does a red light mean?', context: 'A green light means that all is well. A red light '
      + 'means that the fibre is unplugged; put it back until it clicks.' },
    { question: 'When does the shop open?', context: 'The shop is closed on Sundays. From Monday to Friday it opens at '
      + 'nine, on Saturdays at ten.' }],
  },
  choose: {
    title: 'Choose', about: 'Which of several continuations goes with a text.',
    fields: [text('text', 'Text'), lines('choices', 'Choices, one a line')],
    request: ({ text: given, choices }) => ({ text: given, choices: linesOf(choices) }),
    examples: [{ text: 'The router has no light.', choices: 'It has no power.\nIt is Tuesday.\nThe bill is paid.' }],
  },
  fill: {
    title: 'Fill masks', about: 'What could stand at each [MASK].',
    fields: [text('text', 'Text with [MASK]')],
    request: ({ text: given }) => ({ text: given, top_k: 8 }),
    examples: [{ text: 'The capital of France is [MASK].' }, { text: 'She [MASK] the door and [MASK] outside.' }],
  },
  next_sentence: {
    title: 'Next sentence', about: 'Whether the second text follows the first.',
    fields: [text('a', 'First', 2), text('b', 'Second', 2)],
    request: ({ a, b }) => ({ a, b }),
    examples: [{ a: 'The router has no light.', b: 'It has no power.' }],
  },
  generate: {
    title: 'Generate', about: 'How a text goes on. Choose a word to see what else was likely there.', streamed: true,
    fields: [text('prompt', 'Beginning'), ...sampling],
    request: ({ prompt, max_tokens: tokens, temperature }) =>
      ({ prompt, max_tokens: Number(tokens), temperature: Number(temperature) }),
    streamFields: { alternatives: 6 },
    examples: [{ prompt: 'Once upon a time' }, { prompt: 'The router' }],
  },
  chat: {
    title: 'Chat', about: 'The reply to what you say.', streamed: true,
    fields: [text('messages', 'You say'), ...sampling],
    request: ({ messages, max_tokens: tokens, temperature }) =>
      ({ messages, max_tokens: Number(tokens), temperature: Number(temperature) }),
    streamFields: {},
    examples: [{ messages: 'My wifi is slow.' }],
  },
  suggest: {
    title: 'Suggest', about: 'The likeliest next words.',
    fields: [text('prompt', 'Beginning')],
    request: ({ prompt }) => ({ prompt, top_k: 8 }),
    examples: [{ prompt: 'The router has no' }],
  },
  score: {
    title: 'Score', about: 'How likely a text is. Stronger words are likelier; choose one to read its probability.',
    fields: [text('text', 'Text')],
    request: ({ text: given }) => ({ text: given }),
    examples: [{ text: 'The cat sat on the mat.' }, { text: 'The mat sat on the cat.' }],
  },
  similar: {
    title: 'Similar', about: 'The texts most like a query, and how alike all of them are.',
    fields: [text('query', 'Query', 1), lines('texts', 'Texts, one a line')],
    request: ({ query, texts }) => ({ query, texts: linesOf(texts), top_k: linesOf(texts).length }),
    examples: [{ query: 'slow wifi', texts: HELPDESK }],
  },
  rerank: {
    title: 'Rerank', about: 'Texts in the order in which they go with a query.',
    fields: [text('query', 'Query', 1), lines('texts', 'Texts, one a line')],
    request: ({ query, texts }) => ({ query, texts: linesOf(texts) }),
    examples: [{ query: 'slow wifi', texts: HELPDESK }],
  },
  embed: {
    title: 'Embed', about: 'The vector of a text, a bar for each of its first numbers.',
    fields: [text('texts', 'Text')],
    request: ({ texts }) => ({ texts }),
    examples: [{ texts: 'The router has no light.' }],
  },
};

const asPython = (value) => {
  if (value === true || value === false) return value ? 'True' : 'False';
  if (Array.isArray(value)) return `[${value.map(asPython).join(', ')}]`;
  if (value && typeof value === 'object') return `(${asPython(value.text)}, ${asPython(value.pair)})`;
  return JSON.stringify(value);
};

/** The command and the lines of Python that ask the same. */
export function codeFor(origin, model, verb, body) {
  const quoted = JSON.stringify({ model, ...body }).replaceAll("'", "'\\''");
  const given = Object.entries(body).map(([name, value]) => `${name}=${asPython(value)}`).join(', ');
  return {
    curl: `curl ${origin}/v1/${verb} \\\n  -H 'content-type: application/json' \\\n  -d '${quoted}'`,
    python: `import bothways as bw\n\nmodel = bw.Client("${origin}", ${JSON.stringify(model)})\n`
      + `print(model.${verb}(${given}))`,
  };
}
