import { describe, expect, it } from 'vitest';
import { agentConfigMap, namespaceStorage } from '../../../contract/agent-storage.ts';
import { ShapingError } from '../../../contract/shaping-error.ts';
import type { DaemonSet } from '../../../kube/objects.ts';

const daemonSet = (name: string, volumes: object[], volumeMounts: object[]): DaemonSet =>
  ({
    metadata: { name },
    spec: { selector: {}, template: { spec: { containers: [{ name: 'agent', volumeMounts }], volumes } } },
  }) as DaemonSet;
const MOUNTS = [
  { name: 'config', mountPath: '/etc/snapshot' },
  { name: 'checkpoints', mountPath: '/volume' },
];
const CONFIG = { name: 'config', configMap: { name: 'snapshot-config' } };
const withClaim = daemonSet(
  'a',
  [CONFIG, { name: 'checkpoints', persistentVolumeClaim: { claimName: 'pvc' } }],
  MOUNTS,
);
const withDirectory = daemonSet('b', [{ name: 'checkpoints', hostPath: { path: '/x' } }], MOUNTS);
const bare = daemonSet('c', [], []);

describe('the storage of a namespace', () => {
  it('is the claim that its agent mounts', () => {
    const storage = { accessMode: 'agentMount', claim: 'pvc', basePath: '/volume' };
    expect(namespaceStorage([bare, withClaim], 'demo')).toEqual(storage);
  });

  it.each([
    [[], 'no snapshot-agent daemonset found in namespace demo'],
    [[withDirectory, bare], 'snapshot-agent daemonset in demo does not mount a PVC-backed checkpoint volume (b, c)'],
  ])('cannot be had', (sets, message) => {
    expect(() => namespaceStorage(sets, 'demo')).toThrow(new ShapingError(message));
  });
});

it('the configuration of an agent is what it mounts', () => {
  expect([agentConfigMap(withClaim), agentConfigMap(bare)]).toEqual(['snapshot-config', undefined]);
});
