import { describe, expect, it } from 'vitest';
import { ConfigError, loadConfig, parseConfig } from '../../../operator/config.ts';

function problem(text: string): string {
  try {
    parseConfig(text);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  throw new Error(`taken: ${text}`);
}

describe("the operator's configuration", () => {
  it('is taken when it is empty: the agents have the storage, all namespaces are worked in', () => {
    expect(parseConfig('')).toMatchObject({
      namespaces: [],
      checkpoint: { enabled: true, storage: { type: 'pvc', pvc: { pvcName: '', basePath: '', create: false } } },
      graph: { rollout: 'auto' },
    });
  });

  it('has the names of the original', () => {
    const text = `checkpoint:
  enabled: true
  cleanupImage: registry.example.com/operator:1
  seccomp: { disabled: false, profile: profiles/own.json }
  storage:
    type: pvc
    pvc: { pvcName: snapshot-pvc, basePath: /checkpoints, create: true, size: 500Gi, storageClassName: fast, accessMode: ReadWriteMany }
`;
    expect(parseConfig(text).checkpoint.storage.pvc).toEqual({
      ...{ pvcName: 'snapshot-pvc', basePath: '/checkpoints', create: true, size: '500Gi' },
      ...{ storageClassName: 'fast', accessMode: 'ReadWriteMany' },
    });
  });

  it('says all that is wrong at once, each with its path', () => {
    const text = `
logLevel: loud
checkpoint: { storage: { type: s3, pvc: { pvcName: data } }, failedFallback: Never, misspelt: 1 }
agents: { port: 0 }
`;
    const lines = problem(text).split('\n  ');
    expect(lines[0]).toBe('the configuration is wrong:');
    expect(lines.slice(1).map((line) => line.split(':')[0])).toEqual([
      ...['logLevel', 'checkpoint.storage.type', 'checkpoint.storage.pvc.basePath'],
      ...['checkpoint.failedFallback', 'checkpoint', 'agents.port'],
    ]);
  });

  it.each([
    ['{ basePath: /x }', 'checkpoint.storage.pvc.pvcName: is required: pvcName and basePath go together'],
    ['{ pvcName: a, basePath: x }', 'checkpoint.storage.pvc.basePath: must be an absolute, clean path'],
    ['{ pvcName: a, basePath: /x/../y }', 'checkpoint.storage.pvc.basePath: must be an absolute, clean path'],
    [
      '{ create: true, size: 1Gi }',
      'checkpoint.storage.pvc.create: needs pvcName and basePath: there is no claim to make',
    ],
    [
      '{ pvcName: a, basePath: /x, create: true }',
      'checkpoint.storage.pvc.size: must be a quantity above 0, such as 500Gi, as create is true',
    ],
    [
      '{ pvcName: a, basePath: /x, create: true, size: 0Gi }',
      'checkpoint.storage.pvc.size: must be a quantity above 0, such as 500Gi, as create is true',
    ],
    [
      '{ pvcName: a, basePath: /x, accessMode: ReadOnlyMany }',
      'checkpoint.storage.pvc.accessMode: must be ReadWriteMany or ReadWriteOnce, or empty',
    ],
  ])('refuses the claim %s', (pvc, sentence) => {
    expect(problem(`checkpoint: { storage: { pvc: ${pvc} } }`)).toContain(sentence);
  });

  it.each([
    ['namespaces: [Demo]', 'namespaces.0: is no name of a namespace'],
    [
      'webhook: { certificateDays: 100, authorityDays: 200 }',
      'webhook.authorityDays: must be at least three times certificateDays: 300',
    ],
    ['checkpoint: { seccomp: { profile: ../x } }', 'checkpoint.seccomp.profile: must be a clean path'],
    ['http: { address: "8080" }', 'http.address: must be host:port'],
    ['a: &x 1\nb: *x', 'configuration is no YAML'],
    ['[1]', '(top level)'],
  ])('refuses %s', (text, sentence) => {
    expect(problem(text)).toContain(sentence);
  });

  it('that is not there is an error like any other', () => {
    expect(() => loadConfig('/nowhere/config.yaml')).toThrow(
      /^configuration file \/nowhere\/config.yaml cannot be read/,
    );
  });
});
