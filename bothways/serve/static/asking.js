// Requests to the server that the page came from, and to no other.

/** What the server said of a request that it did not answer. */
export class Refusal extends Error {
  constructor(status, { type, message, request_id: id }) {
    super(message);
    Object.assign(this, { status, type, id });
  }
}

async function send(path, body, key, signal) {
  const headers = { 'content-type': 'application/json', ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const options = body ? { method: 'POST', headers, body: JSON.stringify(body), signal } : { headers, signal };
  const reply = await fetch(path, options);
  if (!reply.ok) {
    const content = await reply.json().catch(() => ({}));
    throw new Refusal(reply.status, content.error ?? { message: `the server answered ${reply.status}` });
  }
  return reply;
}

/** A reply's JSON. Throws a Refusal. */
export const ask = async (path, body, key, signal) => (await send(path, body, key, signal)).json();

/** Calls `onEvent(name, content)` for each server-sent event. Throws a Refusal, also where the stream ends with one. */
export async function askForStream(path, body, key, signal, onEvent) {
  const reader = (await send(path, body, key, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (kept + value).split('\n\n');
    kept = blocks.pop();
    for (const block of blocks) {
      const name = /^event: (.*)$/m.exec(block)?.[1] ?? '';
      const content = JSON.parse(/^data: (.*)$/m.exec(block)[1]);
      if (name === 'error') throw new Refusal(500, content.error);
      onEvent(name, content);
    }
  }
}
