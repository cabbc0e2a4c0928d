import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../agent/config.ts';
import { ORIGINAL_KEYS } from '../../agent/config-original.ts';
import { ERRORS } from '../../agent/errors.ts';
import * as keys from '../../contract/keys.ts';
import { VERSION } from '../../contract/version.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const sorted = (values: Iterable<string>) => [...new Set(values)].sort();
const matches = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, found = '']) => found);

/** Rows of the tables on a page, as their cells. */
function rows(page: string): string[][] {
  return page
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()));
}

/** The first cells of a section's tables, without the backquotes. */
function codesIn(page: string, section: RegExp): string[] {
  const sections = page.split(/^## /m).filter((text) => section.test(text));
  return sections.flatMap((text) => matches(text, /^\| `([A-Z_]+)` \|/gm));
}

function sources(directory: string): string[] {
  return readdirSync(join(ROOT, directory), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(directory, name));
}

describe('docs/troubleshooting.md', () => {
  const page = read('docs/troubleshooting.md');

  it('has a heading for every error code, and no other', () => {
    expect(sorted(matches(page, /^### (.+)$/gm))).toEqual(sorted(Object.keys(ERRORS)));
  });

  it('has a row for every reason code, and no other', () => {
    const given = sources('agent').flatMap((file) =>
      matches(read(file), /(?:\bcode:|\brefuse\(|\bunsigned\()\s*'([A-Z][A-Z_]+)'/g),
    );
    const reasons = given.filter((code) => !(code in ERRORS));
    expect(sorted(codesIn(page, /^Reasons/))).toEqual(sorted(reasons));
  });

  it('has a row for every way in which a restored container ends', () => {
    const ends = matches(read('agent/container/life.ts'), /'(EXITED|[A-Z]+_[A-Z_]+)'/g);
    const reasons = ends.filter((code) => !(code in ERRORS));
    expect(sorted(codesIn(page, /^How a container ended/))).toEqual(sorted(reasons));
  });
});

describe('docs/configuration.md', () => {
  const table = new Map(rows(read('docs/configuration.md')).map((cells) => [cells[1]?.replaceAll('`', ''), cells]));

  /** Every key with its default, as paths. */
  function flat(value: unknown, path: readonly string[] = []): [string, unknown][] {
    const isEmpty = typeof value === 'object' && value !== null && Object.keys(value).length === 0;
    if (typeof value !== 'object' || value === null || Array.isArray(value) || isEmpty)
      return [[path.join('.'), value]];
    return Object.entries(value).flatMap(([key, below]) => flat(below, [...path, key]));
  }

  const required = { nodeName: 'here', 'storage.basePath': '/volume' };
  const config = parseConfig('nodeName: here\nstorage: { basePath: /volume }');

  it.each(flat(config))('says of %s that its default is %j', (key, value) => {
    const cell = key in required ? 'required' : `\`${JSON.stringify(value)}\``;
    expect(table.get(key)?.[2]).toBe(cell);
  });

  it('names no key that is not there', () => {
    const known = new Set([
      ...flat(config).map(([key]) => key),
      ...Object.keys(ORIGINAL_KEYS).map((key) => `criu.${key}`),
    ]);
    // Without a default, so that it is not among the values.
    expect([...table.keys()].filter((key) => !known.has(key ?? ''))).toEqual(['restore.nsRestorePath']);
  });

  it.each(Object.entries(ORIGINAL_KEYS))('says what becomes of criu.%s', (key, { same, otherwise }) => {
    const [, , silent, other] = table.get(`criu.${key}`) ?? [];
    expect(silent).toBe(same.map((value) => `\`${JSON.stringify(value)}\``).join(', ') || 'none');
    expect(other).toBe({ warn: 'warning', refuse: 'refused' }[otherwise]);
  });
});

describe('docs/protocol.md', () => {
  const page = read('docs/protocol.md');
  const names = [keys.LABELS, keys.ANNOTATIONS, keys.SENTINELS].flatMap((group) => Object.values<string>(group));

  it.each([...names, keys.CONTROL_DIR_ENV])('has a row for %s', (name) => {
    expect(rows(page).map((cells) => cells[1])).toContain(`\`${name}\``);
  });

  it('names no key of a pod that is not in the contract', () => {
    const named = matches(page, /`((?:nvidia\.com|batch\.kubernetes\.io)\/[a-z-]+)`/g);
    expect(sorted(named).filter((name) => !names.includes(name))).toEqual([]);
  });
});

describe('docs/operations.md', () => {
  it('has a row for every step of an operation, and no other', () => {
    const operations = ['checkpoint', 'adoption', 'restore', 'target']
      .map((name) => read(`agent/operations/${name}.ts`))
      .join('');
    const steps = matches(operations, /(?:\bname: |\bstep: |\blap\()'([a-z-]+)'/g);
    const table = rows(read('docs/operations.md')).filter((cells) =>
      /^(both|checkpoint|restore)$/.test(cells[2] ?? ''),
    );
    expect(sorted(table.map((cells) => cells[1]?.replaceAll('`', '') ?? ''))).toEqual(sorted(steps));
  });
});

it('docs/flow.svg shows figures that docs/gpu.md has', () => {
  const figures = matches(read('docs/flow.svg').replace(/<style>[\s\S]*<\/style>/, ''), /(\d+\.\d) s\b/g);
  const measured = matches(read('docs/gpu.md'), /(\d+\.\d)\b/g);
  // What is left of the restore beside the GPU.
  const known = [...measured, (9.4 - 7.3).toFixed(1)];
  expect(figures.length).toBeGreaterThan(4);
  expect(figures.filter((figure) => !known.includes(figure))).toEqual([]);
});

describe('links', () => {
  const pages = [
    'README.md',
    ...['bench', 'deploy', 'docs', 'test'].flatMap((directory) =>
      readdirSync(join(ROOT, directory), { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.md'))
        .map((name) => join(directory, name)),
    ),
  ];
  /** Comments in code look like headings, and some code like links. */
  const prose = (page: string) => read(page).replaceAll(/^```[\s\S]*?^```$/gm, '');

  /** The anchor that a heading gets. */
  const anchor = (heading: string) =>
    heading
      .toLowerCase()
      .replace(/[^a-z0-9 _-]/g, '')
      .replaceAll(' ', '-');

  it.each(pages)('of %s lead somewhere', (page) => {
    const targets = [
      ...matches(prose(page), /\]\((?!https?:)([^)\s]+)\)/g),
      ...matches(prose(page), /\b(?:src|srcset|href)="(?!https?:)([^"]+)"/g),
    ];
    const broken = targets.filter((target) => {
      const [path = '', fragment] = target.split('#');
      const file = path === '' ? page : join(dirname(page), path);
      if (!existsSync(join(ROOT, file))) return true;
      return (
        fragment !== undefined &&
        !matches(prose(file), /^#+ (.+)$/gm)
          .map(anchor)
          .includes(fragment)
      );
    });
    expect(broken).toEqual([]);
  });

  it('lead from README.md, over other pages, to every page below docs', () => {
    const seen = new Set<string>();
    const follow = (page: string) => {
      if (seen.has(page)) return;
      seen.add(page);
      for (const target of matches(prose(page), /\]\((?!https?:)([^)#\s]+\.md)[^)]*\)/g))
        follow(join(dirname(page), target));
    };
    follow('README.md');
    expect(pages.filter((page) => page.startsWith('docs/') && !seen.has(page))).toEqual([]);
  });

  it('lead from the list of decisions to each of them', () => {
    const linked = matches(read('docs/decisions/README.md'), /\]\((\d{4}[^)]+)\)/g);
    const there = readdirSync(join(ROOT, 'docs/decisions')).filter((name) => /^\d{4}-/.test(name));
    expect(sorted(linked)).toEqual(sorted(there));
  });
});

it('the agent says the version of the package', () => {
  expect(JSON.parse(read('package.json'))).toMatchObject({ version: VERSION });
});
