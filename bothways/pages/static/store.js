// What is chosen on the page, and who draws again when it changes.

/** The fields whose change gives another large matrix. */
export const MATRIX_FIELDS = ['reading', 'layer', 'head', 'view', 'numbers', 'segments', 'mergeWords', 'beside'];

/** What is chosen when the page opens. dark: whether the reader's scheme is. */
export function initialState(data, dark) {
  const token = Math.max(0, data.tokens.findIndex(({ special }) => !special));
  return {
    dark,
    token, // of all sections
    reading: 0, // the model's own mask, or the other
    layer: 0,
    head: 0,
    view: 'head', // or 'average', 'rollout', 'gradient'
    numbers: 'weights', // or 'scores'
    segments: 'all', // or 'ab': from the first text to the second, 'ba', 'aa', 'bb'
    mergeWords: false,
    beside: false, // the other reading's matrix beside the chosen one
    stepsReading: 0, // the view step by step follows the four above, and may leave them
    stepsLayer: 0,
    stepsHead: 0,
    stepsToken: token,
    embeddingsState: data.embeddings.points.length - 1, // 0: what the first layer reads, then each layer's output
    checkpointLayer: 0,
    checkpointHead: 0,
  };
}

/**
 * A state whose fields change through `set` alone, which calls each `draw` that subscribed to a field that changed.
 * Throws for a field that the initial state does not have.
 */
export function createStore(initial) {
  const state = { ...initial };
  const subscriptions = [];
  const requireFields = (fields) => {
    const unknown = fields.filter((field) => !(field in initial));
    if (unknown.length) throw new Error(`no such field: ${unknown.join(', ')}`);
  };
  return {
    state,
    set(changes) {
      requireFields(Object.keys(changes));
      const changed = Object.keys(changes).filter((field) => state[field] !== changes[field]);
      Object.assign(state, changes);
      const concerned = subscriptions.filter(({ fields }) => fields.some((field) => changed.includes(field)));
      for (const { draw } of concerned) draw();
    },
    subscribe(fields, draw) {
      requireFields(fields);
      subscriptions.push({ fields, draw });
    },
  };
}

/** A draw in two parts, a slow `load` and a `show` of what it gave; a load that a newer one overtook is not shown. */
export function latest(load, show) {
  let newest = 0;
  return async () => {
    newest += 1;
    const own = newest;
    const loaded = await load();
    if (own === newest) show(loaded);
  };
}
