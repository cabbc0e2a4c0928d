import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, it } from 'vitest';

/** Which rooms a room may import from: those of agent/, those of the other programs with their name before it, and what all use. `types`: only what is erased. */
const MAY_IMPORT: Readonly<Record<string, { values: readonly string[]; types?: readonly string[] }>> = {
  'main.ts': {
    values: ['serve.ts', 'config.ts', 'config-original.ts', 'config-reload.ts', 'errors.ts', 'contract'],
  },
  'serve.ts': {
    values: [
      'agent.ts',
      'doors.ts',
      'api',
      'cluster',
      'config.ts',
      'cuda',
      'errors.ts',
      'host',
      'operations',
      'store',
      'watch',
      'contract',
    ],
  },
  'doors.ts': { values: ['api', 'operations', 'contract'], types: ['config.ts'] },
  'agent.ts': { values: ['errors.ts', 'operations', 'plan', 'contract', 'kube'], types: ['watch'] },
  api: { values: ['errors.ts', 'contract', 'kube', 'operations'], types: ['store'] },
  cluster: {
    values: ['config.ts', 'errors.ts', 'contract', 'kube', 'operations', 'store', 'watch'],
    types: ['api', 'host', 'plan'],
  },
  watch: { values: ['errors.ts', 'contract', 'kube'] },
  plan: { values: ['contract'] },
  operations: {
    values: ['container', 'criu', 'cuda', 'store', 'host', 'errors.ts', 'contract', 'plan'],
    types: ['watch', 'config.ts', 'kube'],
  },
  container: { values: ['errors.ts', 'contract'], types: ['host'] },
  criu: { values: ['host', 'errors.ts'] },
  cuda: { values: ['container', 'errors.ts', 'host', 'kube'] },
  store: { values: ['errors.ts', 'contract'], types: ['host'] },
  host: { values: ['errors.ts'] },
  'config-reload.ts': { values: ['config.ts', 'config-live.ts', 'config-original.ts', 'errors.ts'] },
  'config-live.ts': { values: ['config.ts', 'config-original.ts'] },
  'config.ts': { values: ['config-cuda.ts', 'config-original.ts', 'config-services.ts', 'errors.ts'] },
  'config-cuda.ts': { values: [] },
  'config-services.ts': { values: [] },
  'config-original.ts': { values: [] },
  'errors.ts': { values: [] },
  'operator/checkpoint': {
    values: ['operator/control', 'operator/storage', 'contract', 'kube'],
    types: ['operator/agents'],
  },
  'operator/storage': { values: ['contract', 'kube'] },
  'operator/agents': { values: ['operator/control', 'contract'] },
  'operator/main.ts': { values: ['operator/config.ts', 'operator/serve.ts', 'contract', 'kube'] },
  'operator/serve.ts': {
    values: [
      'operator/agents',
      'operator/api',
      'operator/caches.ts',
      'operator/config.ts',
      'operator/control',
      'operator/controllers.ts',
      'operator/slices.ts',
      'operator/webhook',
      'contract',
      'kube',
    ],
  },
  'operator/controllers.ts': {
    values: [
      'operator/checkpoint',
      'operator/control',
      'operator/deletion',
      'operator/graph',
      'operator/slices.ts',
      'operator/storage',
      'operator/webhook',
      'contract',
    ],
    types: ['operator/agents', 'operator/api', 'operator/caches.ts', 'operator/config.ts', 'kube'],
  },
  'operator/caches.ts': {
    values: ['operator/agents', 'operator/checkpoint', 'operator/control', 'operator/graph', 'contract', 'kube'],
    types: ['operator/api'],
  },
  'operator/slices.ts': {
    values: ['contract'],
    types: ['operator/caches.ts', 'operator/checkpoint', 'operator/config.ts', 'operator/webhook'],
  },
  'operator/config.ts': { values: ['operator/config-storage.ts', 'contract'] },
  'operator/config-storage.ts': { values: [] },
  'operator/api': { values: ['operator/control', 'operator/deletion', 'operator/webhook'] },
  'operator/cleanup': { values: ['contract'] },
  'operator/deletion': { values: ['operator/control', 'contract', 'kube'] },
  'operator/control': { values: ['contract', 'kube'] },
  'operator/webhook': { values: ['operator/control', 'contract', 'kube'] },
  'operator/graph': { values: ['operator/control', 'contract', 'kube'] },
  contract: { values: [], types: ['kube'] },
  kube: { values: [] },
  'snapshotctl/main.ts': { values: ['snapshotctl/cli.ts', 'snapshotctl/terminal.ts'] },
  'snapshotctl/cli.ts': {
    values: ['snapshotctl/commands', 'snapshotctl/failure.ts', 'snapshotctl/show', 'contract'],
    types: ['snapshotctl/terminal.ts'],
  },
  'snapshotctl/commands': {
    values: [
      'snapshotctl/cluster.ts',
      'snapshotctl/completion',
      'snapshotctl/credentials',
      'snapshotctl/failure.ts',
      'snapshotctl/reach',
      'snapshotctl/report',
      'snapshotctl/show',
      'snapshotctl/workload',
      'contract',
    ],
    types: ['snapshotctl/terminal.ts', 'kube'],
  },
  'snapshotctl/cluster.ts': {
    values: ['snapshotctl/failure.ts', 'snapshotctl/show', 'contract', 'kube'],
    types: ['snapshotctl/terminal.ts'],
  },
  'snapshotctl/completion': { values: [] },
  'snapshotctl/credentials': { values: ['snapshotctl/failure.ts', 'contract', 'kube'] },
  'snapshotctl/reach': {
    values: ['snapshotctl/cluster.ts', 'snapshotctl/failure.ts', 'snapshotctl/show', 'contract', 'kube'],
    types: ['snapshotctl/terminal.ts'],
  },
  'snapshotctl/report': { values: ['snapshotctl/show'], types: ['contract'] },
  'snapshotctl/show': { values: [], types: ['snapshotctl/terminal.ts', 'contract'] },
  'snapshotctl/workload': {
    values: ['snapshotctl/cluster.ts', 'snapshotctl/failure.ts', 'snapshotctl/show', 'contract', 'kube'],
    types: ['snapshotctl/terminal.ts'],
  },
  'snapshotctl/failure.ts': { values: [] },
  'snapshotctl/terminal.ts': { values: [] },
};

interface Import {
  readonly file: string;
  readonly target: string;
  readonly typeOnly: boolean;
}

const OUTSIDE = ['contract', 'kube'];
const PROGRAMS = ['agent', 'operator', 'snapshotctl'];
const files = [...PROGRAMS, ...OUTSIDE].flatMap((top) =>
  readdirSync(top, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(top, name)),
);
const text = new Map(files.map((file) => [file, readFileSync(file, 'utf8')]));
const imports = files.flatMap(importsOf);

function importsOf(file: string): Import[] {
  const statement = /^(?:import|export) (type )?([^'";]* from )?'([^']+)';|\bimport\('([^']+)'\)/gm;
  return [...(text.get(file) ?? '').matchAll(statement)].map(([, type, names = '', from, dynamic]) => {
    const named = /^\{([^}]*)\} from $/.exec(names)?.[1];
    const areAllTypes =
      named?.split(',').every((name) => name.trim() === '' || name.trim().startsWith('type ')) ?? false;
    const target = from ?? dynamic ?? '';
    const path = target.startsWith('.') ? normalize(join(dirname(file), target)) : target;
    return { file, target: path, typeOnly: type !== undefined || areAllTypes };
  });
}

const roomOf = (path: string) => {
  const [top = '', next = path] = path.split('/');
  if (OUTSIDE.includes(top)) return top;
  return top === 'agent' ? next : `${top}/${next}`;
};
const isOwn = (path: string) => [...PROGRAMS, ...OUTSIDE].some((top) => path.startsWith(`${top}/`));
const importersOf = (library: RegExp) => [
  ...new Set(imports.filter(({ target }) => library.test(target)).map(({ file }) => file)),
];

describe('the structure of the product', () => {
  it('has imports that point one way, as the table of rooms says', () => {
    const wrong = imports
      .filter(({ target }) => isOwn(target))
      .filter(({ file, target, typeOnly }) => {
        const [from, to] = [roomOf(file), roomOf(target)];
        const { values = [], types = [] } = MAY_IMPORT[from] ?? {};
        return from !== to && !values.includes(to) && !(typeOnly && types.includes(to));
      });
    expect(wrong).toEqual([]);
  });

  it('uses every line of that table', () => {
    const used = new Set(imports.map(({ file, target }) => `${roomOf(file)} → ${roomOf(target)}`));
    const stated = Object.entries(MAY_IMPORT).flatMap(([from, { values, types = [] }]) =>
      [...values, ...types].map((to) => `${from} → ${to}`),
    );
    expect(stated.filter((edge) => !used.has(edge))).toEqual([]);
  });

  it('imports only files that exist, and never in a circle', () => {
    const next = new Map(
      files.map((file) => [
        file,
        imports.filter((edge) => edge.file === file && !edge.typeOnly).map(({ target }) => target),
      ]),
    );
    const circles: string[][] = [];
    const visit = (file: string, path: readonly string[], done: Set<string>) => {
      if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file]);
      if (path.includes(file) || done.has(file)) return;
      for (const target of next.get(file) ?? []) if (isOwn(target)) visit(target, [...path, file], done);
      done.add(file);
    };
    const done = new Set<string>();
    for (const file of files) visit(file, [], done);
    expect(circles).toEqual([]);
    const missing = imports.filter(({ target }) => target.startsWith('agent/') && !text.has(target));
    expect(missing).toEqual([]);
  });

  it.each([
    ['child processes', /^execa$/, ['agent/host/exec.ts']],
    [
      'gRPC: the runtime, kubelet, and the agents',
      /^@grpc\//,
      ['agent/api', 'agent/cuda/pod-resources.ts', 'agent/watch/runtime.ts', 'contract/agent-api'],
    ],
    ['the Kubernetes API', /^(@kubernetes\/|ws$)/, ['kube']],
    ['changes of files', /^chokidar$/, ['agent/config-reload.ts']],
    ['child processes past execa', /^(node:)?(child_process|cluster|worker_threads)$/, []],
  ])('has one door to %s', (_, library, doors) => {
    const isBelow = (file: string) => (door: string) => file === door || file.startsWith(`${door}/`);
    const importers = importersOf(library);
    expect(importers.filter((file) => !doors.some(isBelow(file)))).toEqual([]);
    expect(doors.filter((door) => !importers.some((file) => isBelow(file)(door)))).toEqual([]);
  });

  it('keeps files short: main within 120 lines, none beyond 300', () => {
    const lines = (file: string) => (text.get(file) ?? '').trimEnd().split('\n').length;
    expect(lines('agent/main.ts')).toBeLessThanOrEqual(120);
    const long = files.filter((file) => lines(file) > 300).map((file) => `${file}: ${lines(file)} lines`);
    expect(long).toEqual([]);
  });
});
