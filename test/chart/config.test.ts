import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../agent/config.ts';
import { isLive } from '../../agent/config-live.ts';
import { only, refusalOf, render } from './render.ts';

interface Workload {
  readonly spec: { readonly template: { readonly metadata: { readonly annotations: Record<string, string> } } };
}

/** The configuration that the agent gets, as it is in the ConfigMap. */
function configOf(values: object, namespace = 'demo'): string {
  const { data } = only(render(values, { namespace }), 'ConfigMap', 'snapshot-config') as unknown as {
    data: { 'config.yaml': string };
  };
  return data['config.yaml'];
}

const clientsOf = (values: object) => parseConfig(configOf(values), { NODE_NAME: 'a' }).api.clients;

describe('the configuration of the agent', () => {
  it.each([
    [{ config: null }, 'config is null'],
    [{ operator: { config: null } }, 'operator.config is null'],
    [{ config: null, operator: { enabled: true } }, 'config is null'],
  ])('taken away by %j is refused with a sentence', (values, says) => {
    expect(refusalOf(values)).toMatch(new RegExp(`^${says}, which leaves`));
  });

  it('has what the values say of it elsewhere, and all of `config`', () => {
    const text = configOf({
      daemonset: { snapshotLogLevel: 'debug', terminationGracePeriodSeconds: 90 },
      runtime: { type: 'crio', socketPath: '/run/other/crio.sock' },
      storage: { accessMode: 'podMount', pvc: { basePath: '/data/snapshots' } },
      metrics: { port: 9100 },
      kubelet: { rootDir: '/var/lib/k0s/kubelet' },
      config: { limits: { drainSeconds: 60 }, retention: { ttlSeconds: 3600 }, criu: { tcpClose: false } },
    });
    expect(parse(text)).toMatchObject({
      logLevel: 'debug',
      runtime: { type: 'crio', socketPath: '/run/other/crio.sock' },
      storage: { type: 'pvc', accessMode: 'podMount', basePath: '/data/snapshots' },
      http: { address: ':9100' },
      cuda: { podResourcesSocket: '/var/lib/k0s/kubelet/pod-resources/kubelet.sock' },
      limits: { drainSeconds: 60 },
      retention: { ttlSeconds: 3600 },
      criu: { tcpClose: false },
      memory: { workBytes: 2147483648 },
    });
  });

  it('takes the same value in both places', () => {
    expect(configOf({ config: { storage: { basePath: '/checkpoints' }, logLevel: 'info' } })).toBe(configOf({}));
  });

  it('takes the keys of the original chart, with the values that it had', () => {
    const criu = {
      ghostLimit: 536870912,
      logLevel: 4,
      workDir: '/var/criu-work',
      leaveRunning: true,
      shellJob: true,
      tcpClose: false,
      tcpEstablished: true,
      fileLocks: true,
      orphanPtsMaster: true,
      extUnixSk: true,
      linkRemap: true,
      extMasters: true,
      manageCgroupsMode: 'soft',
      imageIoMode: 'direct',
      rstSibling: true,
      mntnsCompatMode: false,
      evasiveDevices: true,
      forceIrmap: true,
      autoDedup: false,
      lazyPages: false,
      libDir: '',
      allowUprobes: true,
      skipInFlight: true,
    };
    const restore = { nsRestorePath: '/usr/local/bin/nsrestore', restoreTimeoutSeconds: 7200 };
    expect(parseConfig(configOf({ config: { criu, restore } }), { NODE_NAME: 'a' })).toMatchObject({ criu, restore });
  });

  it('lets the operator call over TLS, for the namespaces that the agent serves, and those who are named', () => {
    const tcp = { enabled: true };
    const ci = { name: 'ci', namespaces: ['builds'] };
    expect(clientsOf({})).toEqual([]);
    expect(clientsOf({ api: { tcp } })).toEqual([{ name: 'snapshot-operator', namespaces: ['demo'] }]);
    expect(clientsOf({ api: { tcp, clients: [ci] }, rbac: { namespaceRestricted: false } })).toEqual([
      { name: 'snapshot-operator', namespaces: ['*'] },
      ci,
    ]);
    const less = { name: 'snapshot-operator', namespaces: ['a'] };
    expect(clientsOf({ api: { tcp, clients: [less] } })).toEqual([less]);
  });
});

describe('a change of the configuration', () => {
  const stamp = (config: object) => {
    const { spec } = only(render({ config }), 'DaemonSet') as unknown as Workload;
    return spec.template.metadata.annotations['checksum/config'];
  };
  /** Another value of a key, in the shape of the configuration. */
  const other = (key: string, value: unknown) =>
    key
      .split('.')
      .reverse()
      .reduce<unknown>((below, name) => ({ [name]: below }), value) as object;

  it('restarts no agent where it reads the key again by itself', () => {
    const changes = [
      other('checkpoint.timeoutSeconds', 60),
      other('limits.drainSeconds', 60),
      other('retention.ttlSeconds', 60),
      other('overlay.exclusions', ['/x']),
      other('cuda.proveRestore', 'always'),
      other('criu.tcpClose', true),
    ];
    for (const change of changes) expect([change, stamp(change)]).toEqual([change, stamp({})]);
  });

  it('restarts the agents, one after the other, for any other key', () => {
    const changes: [string, number][] = [
      ['memory.workBytes', 1 << 30],
      ['memory.threads', 2],
      ['limits.parallelOperations', 2],
      ['kubernetes.leaseSeconds', 20],
      ['cuda.maxWorkers', 16],
      ['api.limits.burst', 100],
    ];
    for (const [key, value] of changes) {
      expect(isLive(key)).toBe(false);
      expect([key, stamp(other(key, value)) === stamp({})]).toEqual([key, false]);
    }
  });
});
