/** A label that a selector asks for. */
interface Matcher {
  readonly label: string;
  readonly operator: string;
  readonly value: string;
}

export interface Selector {
  readonly metric: string;
  readonly matchers: readonly Matcher[];
}

/** What an expression reads. */
export interface Reads {
  readonly selectors: readonly Selector[];
  /** Labels named by `by`, `on` and the like. */
  readonly labels: readonly string[];
}

const TOKEN =
  /\s+|#.*|("(?:[^"\\]|\\.)*")|(\d+(?:\.\d+)?[a-z]*)|([A-Za-z_:$][\w:$]*)|(=~|!~|!=|>=|<=|==|[-+*/%^(){}[\],=<>])/gy;
const OPERATORS = new Set(['and', 'or', 'unless', 'offset', 'bool', 'atan2']);
const LISTS = new Set(['by', 'without', 'on', 'ignoring', 'group_left', 'group_right']);

/** Reads an expression of PromQL. Throws at what it does not know: a query that is not understood is not checked. */
export function readsOf(expression: string): Reads {
  const tokens = tokensOf(expression);
  const selectors: Selector[] = [];
  const labels: string[] = [];
  let at = 0;
  const until = (end: string): string[] => {
    const from = at;
    at = tokens.indexOf(end, at);
    if (at < 0) throw new Error(`no ${end} in ${expression}`);
    return tokens.slice(from, at++);
  };
  while (at < tokens.length) {
    const token = tokens[at++] ?? '';
    if (token === '[') until(']');
    if (!/^[A-Za-z_:]/.test(token) || OPERATORS.has(token)) continue;
    const next = tokens[at];
    if (LISTS.has(token)) {
      at++;
      labels.push(...until(')').filter((one) => one !== ','));
    } else if (next === '{') {
      at++;
      selectors.push({ metric: token, matchers: matchersOf(until('}')) });
    } else if (next !== '(' && !LISTS.has(next ?? '')) {
      selectors.push({ metric: token, matchers: [] });
    }
  }
  return { selectors, labels };
}

function tokensOf(expression: string): string[] {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < expression.length) {
    const from = TOKEN.lastIndex;
    const found = TOKEN.exec(expression);
    if (found === null) throw new Error(`not understood: ${expression.slice(from)}`);
    const [, text, number, name, sign] = found;
    const token = text ?? number ?? name ?? sign;
    if (token !== undefined) tokens.push(token);
  }
  return tokens;
}

function matchersOf(tokens: readonly string[]): Matcher[] {
  const matchers: Matcher[] = [];
  for (let at = 0; at < tokens.length; at += 4) {
    const [label = '', operator = '', value = ''] = tokens.slice(at, at + 3);
    matchers.push({ label, operator, value: JSON.parse(value) as string });
  }
  return matchers;
}
