import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

it('the library for traces is loaded only where there is an endpoint: nobody imports more than its types', () => {
  const files = readdirSync('agent', { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const importsOf = (file: string) =>
    [...readFileSync(join('agent', file), 'utf8').matchAll(/^import (type )?.*'(@opentelemetry\/[^']+)';$/gm)].map(
      ([, type, library]) => ({ file, library, isType: type !== undefined }),
    );
  const found = files.flatMap(importsOf);
  expect(found.length).toBeGreaterThan(0);
  expect(found.filter(({ isType }) => !isType)).toEqual([]);
});
