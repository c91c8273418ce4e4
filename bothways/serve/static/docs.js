// All routes, from the server's own description of them: what each is for, its request, and an example that works.

import { ask } from './asking.js';
import { el, explanation } from './dom.js';

const page = document.getElementById('page');

/** A schema that is named is looked up. */
function resolved(schema, document) {
  const name = schema?.$ref?.split('/').pop();
  return name ? document.components.schemas[name] : schema ?? {};
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split('/').pop();
  const any = schema.anyOf ?? schema.oneOf;
  if (any) return any.map((part) => typeOf(part)).join(' or ');
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' or ');
  return schema.type === 'array' ? `list of ${typeOf(schema.items ?? {})}` : schema.type ?? 'anything';
}

/** A request with an example of each field that is needed. */
function exampleOf(schema) {
  const needed = schema.required ?? [];
  return Object.fromEntries(Object.entries(schema.properties ?? {})
    .filter(([name, { examples }]) => needed.includes(name) || examples)
    .map(([name, { examples }]) => [name, examples?.[0] ?? (name === 'model' ? 'MODEL' : '…')]));
}

function drawRequest(schema, document, path) {
  const kinds = (schema.anyOf ?? [schema]).map((part) => resolved(part, document));
  return kinds.flatMap((kind) => {
    const fields = Object.entries(kind.properties ?? {}).map(([name, field]) => el('li', {}, el('code', {}, name),
      ` ${typeOf(field)}`, kind.required?.includes(name) ? ', needed' : '',
      field.default !== undefined ? `, by default ${JSON.stringify(field.default)}` : ''));
    const body = JSON.stringify(exampleOf(kind)).replaceAll("'", "'\\''");
    const command = `curl ${location.origin}${path} -H 'content-type: application/json' -d '${body}'`;
    const about = kind.description && explanation(kind.description);
    return [about, el('ul', {}, fields), el('pre', { tabindex: 0 }, command)];
  });
}

function drawRoute(path, method, route, document) {
  const schema = route.requestBody?.content?.['application/json']?.schema;
  const content = schema ? drawRequest(schema, document, path)
    : [el('pre', { tabindex: 0 }, `curl ${location.origin}${path}`)];
  return el('details', {}, el('summary', {}, el('strong', {}, `${method.toUpperCase()} ${path}`), ` ${route.summary}`),
    content);
}

async function start() {
  const document = await ask('/openapi.json');
  const sections = new Map();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const tag = route.tags?.[0] ?? 'others';
      sections.set(tag, [...(sections.get(tag) ?? []), drawRoute(path, method, route, document)]);
    }
  }
  page.replaceChildren(el('h1', {}, 'All routes'), explanation('Errors are {"error": {type, message, param, '
    + 'request_id}}, or what the clients of the route know.'), el('p', {}, el('a', { href: '/' }, 'Try the models')),
  ...[...sections].map(([tag, routes]) => el('section', {}, el('h2', {}, tag), routes)));
}

window.bothways = { ready: start() };
