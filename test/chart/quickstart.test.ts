import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CHART, helm } from './render.ts';

/** The installations that README.md and docs/quickstart.md show: helm renders each, with every variant of the quickstart's table. */
const ROOT = join(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const VARIABLES = { $REGISTRY: 'registry.example.com', $NAMESPACE: 'demo' };

/** Words as a shell has them: single quotes are taken away, a variable is put in. */
function wordsOf(command: string): string[] {
  const filled = Object.entries(VARIABLES).reduce((text, [name, value]) => text.replaceAll(name, value), command);
  return filled
    .replaceAll(/\\\n/g, ' ')
    .trim()
    .split(/\s+/)
    .map((word) => word.replaceAll("'", ''));
}

const installations = (page: string) =>
  [...read(page).matchAll(/^helm upgrade --install snapshot \.\/deploy\/chart((?:.*\\\n)*.*)$/gm)].map(
    ([, flags = '']) => wordsOf(flags),
  );
const variants = [...read('docs/quickstart.md').matchAll(/^\| .* \| `(--set .*?)`/gm)].map(([, flags = '']) =>
  wordsOf(flags),
);
const [first = []] = installations('docs/quickstart.md');

/** What `helm template` does not know. */
const OF_INSTALLATIONS = ['--create-namespace', '--reuse-values'];
const render = (flags: readonly string[]) =>
  helm('template', 'snapshot', CHART, ...flags.filter((flag) => !OF_INSTALLATIONS.includes(flag)));

describe('helm renders', () => {
  const shown = ['README.md', 'docs/quickstart.md'].flatMap(installations);

  it.each(shown.map((flags) => [flags.join(' '), flags] as const))('%s', (_, flags) => {
    expect(render(flags)).toContain('kind: DaemonSet');
  });

  it.each(variants.map((flags) => [flags.join(' '), flags] as const))('the first with %s', (_, flags) => {
    expect(render([...first, ...flags])).toContain('kind: DaemonSet');
  });

  it('what is shown, and finds it on the pages', () => {
    expect([shown.length, variants.length]).toEqual([4, 10]);
  });
});
