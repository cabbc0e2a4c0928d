import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../agent/config.ts';
import type { ContainerSpec, PodSpec, Volume } from '../real/environment/agent-manifest.ts';
import { CHART, only, render } from './render.ts';

interface Workload {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> };
  readonly spec: {
    readonly selector: { readonly matchLabels: Readonly<Record<string, string>> };
    readonly template: {
      readonly metadata: {
        readonly labels: Readonly<Record<string, string>>;
        readonly annotations: Readonly<Record<string, string>>;
      };
      readonly spec: Pod;
    };
  };
}
interface Pod extends PodSpec {
  readonly serviceAccountName: string;
  readonly runtimeClassName?: string;
  readonly nodeSelector?: Readonly<Record<string, string>>;
  readonly tolerations?: readonly object[];
  readonly affinity: Readonly<Record<string, unknown>>;
}

const daemonSet = (values: object = {}) => only(render(values), 'DaemonSet') as unknown as Workload;
const podOf = (values: object = {}) => daemonSet(values).spec.template.spec;
const volume = (pod: Pod, name: string): Volume | undefined => pod.volumes.find((one) => one.name === name);
const mount = ({ volumeMounts }: ContainerSpec, name: string) => volumeMounts.find((one) => one.name === name);
const agentOf = (pod: Pod) => pod.containers[0];

describe('the pod of the agent', () => {
  it('has of the node what the agent needs, and no more', () => {
    const pod = podOf();
    expect(pod).toMatchObject({ hostPID: true });
    expect([pod.hostNetwork, pod.hostIPC]).toEqual([undefined, undefined]);
    const { securityContext, resources } = agentOf(pod);
    expect(securityContext).toEqual({ privileged: true, readOnlyRootFilesystem: true, runAsUser: 0 });
    expect(resources.limits).toEqual({ memory: '4Gi' });
    const writable = agentOf(pod).volumeMounts.filter(({ readOnly }) => !readOnly);
    expect(writable.map(({ name }) => name).sort()).toEqual(
      ['api', 'checkpoints', 'host-cgroup', 'host-proc', 'run', 'state', 'tmp'].sort(),
    );
  });

  it('mounts no volume that it does not have, and has none that nobody mounts', () => {
    for (const values of [{}, { storage: { accessMode: 'podMount' } }, { seccomp: { deploy: false } }]) {
      const pod = podOf(values);
      const mounted = [...(pod.initContainers ?? []), ...pod.containers].flatMap(({ volumeMounts }) => volumeMounts);
      expect([...new Set(mounted.map(({ name }) => name))].sort()).toEqual(pod.volumes.map(({ name }) => name).sort());
    }
  });

  it('has the volume of the artifacts where others look for it, in agentMount mode only', () => {
    const values = { storage: { pvc: { name: 'artifacts', basePath: '/data' } } };
    const pod = podOf(values);
    expect(volume(pod, 'checkpoints')?.persistentVolumeClaim).toEqual({ claimName: 'artifacts' });
    expect(mount(agentOf(pod), 'checkpoints')?.mountPath).toBe('/data');
    expect(agentOf(pod).name).toBe('agent');
    expect(daemonSet(values).metadata.labels['app.kubernetes.io/component']).toBe('snapshot-agent');
    expect(volume(podOf({ storage: { accessMode: 'podMount' } }), 'checkpoints')).toBeUndefined();
  });

  it('is found by labels that nobody can take away', () => {
    const own = { 'app.kubernetes.io/component': 'other', 'app.kubernetes.io/name': 'other', team: 'ml' };
    const { metadata, spec } = daemonSet({ daemonset: { labels: own, podLabels: own }, commonLabels: own });
    expect(spec.template.metadata.labels).toMatchObject({ ...spec.selector.matchLabels, team: 'ml' });
    expect(metadata.labels).toMatchObject({ 'app.kubernetes.io/component': 'snapshot-agent', team: 'ml' });
  });

  it.each([
    ['containerd', '/run/containerd', '/var/lib/containerd'],
    ['crio', '/var/run/crio', '/var/lib/containers'],
  ])('has the directories of %s at their own paths, read-only', (type, run, storage) => {
    const pod = podOf({ runtime: { type } });
    for (const [name, path] of [
      ['runtime-run', run],
      ['runtime-storage', storage],
    ] as const) {
      expect(volume(pod, name)?.hostPath?.path).toBe(path);
      const wanted = { mountPath: path, readOnly: true, mountPropagation: 'HostToContainer' };
      expect(mount(agentOf(pod), name)).toMatchObject(wanted);
    }
  });

  it('shares state and socket with no agent of another namespace, where it serves one', () => {
    const paths = (values: object) => {
      const pod = podOf(values);
      return ['state', 'api'].map((name) => volume(pod, name)?.hostPath?.path);
    };
    expect(paths({})).toEqual(['/var/lib/snapshot-agent-snapshot-system', '/run/snapshot-agent-api-snapshot-system']);
    expect(paths({ rbac: { namespaceRestricted: false } })).toEqual([
      '/var/lib/snapshot-agent',
      '/run/snapshot-agent-api',
    ]);
    const given = { daemonset: { statePath: '/mnt/state', apiPath: '/mnt/api' } };
    expect(paths(given)).toEqual(['/mnt/state', '/mnt/api']);
  });

  it('knows its namespace where it serves no other', () => {
    const names = (values: object) => agentOf(podOf(values)).env?.map(({ name }) => name);
    expect(names({})).toContain('RESTRICTED_NAMESPACE');
    expect(names({ rbac: { namespaceRestricted: false } })).not.toContain('RESTRICTED_NAMESPACE');
  });

  it('has its certificates where TLS is on', () => {
    const pod = podOf({ api: { tcp: { enabled: true } } });
    expect(volume(pod, 'tls')?.secret).toMatchObject({ secretName: 'snapshot-agent-tls' });
    expect(mount(agentOf(pod), 'tls')?.mountPath).toBe('/etc/snapshot-tls');
    expect(agentOf(pod).ports.map(({ name }) => name)).toEqual(['http', 'grpc']);
    expect(agentOf(podOf()).ports.map(({ name }) => name)).toEqual(['http']);
  });

  it('runs on linux and amd64 only, whatever else is asked for', () => {
    const podAntiAffinity = { requiredDuringSchedulingIgnoredDuringExecution: [] };
    const { affinity } = podOf({ daemonset: { affinity: { podAntiAffinity } } });
    expect(affinity['podAntiAffinity']).toEqual(podAntiAffinity);
    expect(JSON.stringify(affinity['nodeAffinity'])).toMatch(
      /kubernetes\.io\/os.*"linux".*kubernetes\.io\/arch.*"amd64"/,
    );
  });

  it('is where taints are, unless that is switched off', () => {
    expect(podOf().tolerations).toContainEqual({ operator: 'Exists' });
    const { tolerations } = podOf({ daemonset: { tolerateEverything: false, tolerations: [] } });
    expect(tolerations).toBeUndefined();
  });
});

describe('GPUs', () => {
  const names = (pod: Pod) => agentOf(pod).env?.map(({ name }) => name) ?? [];

  it("bring the runtime class, the driver's variables, and what the agent asks kubelet through", () => {
    const pod = podOf();
    expect(pod.runtimeClassName).toBe('nvidia');
    expect(pod.nodeSelector).toEqual({ 'nvidia.com/gpu.present': 'true' });
    expect(names(pod)).toEqual(expect.arrayContaining(['NVIDIA_VISIBLE_DEVICES', 'NVIDIA_DRIVER_CAPABILITIES']));
    const { podResourcesSocket } = parseConfig('nodeName: a\nstorage: { basePath: /c }').cuda;
    const path = dirname(podResourcesSocket);
    expect(volume(pod, 'pod-resources')?.hostPath?.path).toBe(path);
    expect(mount(agentOf(pod), 'pod-resources')).toMatchObject({ mountPath: path, readOnly: true });
  });

  it('leave nothing behind where they are switched off', () => {
    const pod = podOf({ gpu: { enabled: false } });
    expect([pod.runtimeClassName, pod.nodeSelector, volume(pod, 'pod-resources')]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(names(pod).filter((name) => name.startsWith('NVIDIA'))).toEqual([]);
  });

  it('do without a runtime class where the driver is brought another way', () => {
    expect(podOf({ gpu: { runtimeClassName: '' } }).runtimeClassName).toBeUndefined();
  });
});

describe('OpenShift', () => {
  const values = {
    openshift: { enabled: true },
    daemonset: { podAnnotations: { 'openshift.io/required-scc': 'restricted-v2', own: 'yes' } },
  };

  it('gives the pod its constraints, which no annotation of the values overrides', () => {
    expect(daemonSet(values).spec.template.metadata.annotations).toMatchObject({
      'openshift.io/required-scc': 'privileged',
      own: 'yes',
    });
    expect(only(render(values), 'Role', 'snapshot-privileged')).toMatchObject({
      rules: [{ apiGroups: ['security.openshift.io'], resourceNames: ['privileged'], verbs: ['use'] }],
    });
  });

  it('chooses the users of what makes the credentials', () => {
    const userOf = (given: object) =>
      (only(render(given), 'Job') as unknown as { spec: { template: { spec: { securityContext: object } } } }).spec
        .template.spec.securityContext;
    expect(userOf({})).toMatchObject({ runAsNonRoot: true, runAsUser: 65532 });
    expect(Object.keys(userOf(values)).sort()).toEqual(['runAsNonRoot', 'seccompProfile']);
  });
});

describe('what stays of a release', () => {
  it('is the claim, whatever its annotations say', () => {
    const claim = only(
      render({ storage: { pvc: { annotations: { 'helm.sh/resource-policy': 'delete', own: 'yes' } } } }),
      'PersistentVolumeClaim',
    );
    expect(claim.metadata.annotations).toEqual({ 'helm.sh/resource-policy': 'keep', own: 'yes' });
  });

  it('has no claim that somebody else made', () => {
    const kinds = (storage: object) => render({ storage }).map(({ kind }) => kind);
    expect(kinds({ pvc: { create: false } })).not.toContain('PersistentVolumeClaim');
    expect(kinds({ accessMode: 'podMount' })).not.toContain('PersistentVolumeClaim');
  });
});

describe('the seccomp profile', () => {
  it('is put where kubelet looks for profiles, from a ConfigMap, by a container without any capability', () => {
    const pod = podOf({ kubelet: { rootDir: '/var/lib/k0s/kubelet' } });
    expect(volume(pod, 'host-seccomp')?.hostPath?.path).toBe('/var/lib/k0s/kubelet/seccomp');
    const [init] = pod.initContainers ?? [];
    expect(init).toMatchObject({
      image: agentOf(pod).image,
      securityContext: {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'] },
        readOnlyRootFilesystem: true,
      },
    });
    expect(only(render(), 'ConfigMap', 'snapshot-seccomp')).toMatchObject({
      data: { 'block-iouring.json': readFileSync(resolve(CHART, 'files/block-iouring.json'), 'utf8') },
    });
  });

  it('is written where it differs, and what it replaces is said', () => {
    const node = mkdtempSync(join(tmpdir(), 'seccomp-'));
    const [init] = podOf({}).initContainers ?? [];
    const script = `${(init as { command?: readonly string[] } | undefined)?.command?.[2]}`
      .replaceAll('/host/seccomp', `${node}/host`)
      .replaceAll(' /profiles/', ` ${resolve(CHART, 'files')}/`);
    const run = () => execFileSync('sh', ['-ec', script], { encoding: 'utf8' });
    const file = join(node, 'host/profiles/block-iouring.json');
    const shipped = readFileSync(resolve(CHART, 'files/block-iouring.json'), 'utf8');
    expect([run(), readFileSync(file, 'utf8')]).toEqual(['', shipped]);
    const { ino } = statSync(file);
    expect([run(), statSync(file).ino]).toEqual(['', ino]);
    writeFileSync(file, '{}');
    expect([run(), readFileSync(file, 'utf8')]).toEqual([expect.stringContaining('replacing a profile'), shipped]);
    rmSync(node, { recursive: true });
  });

  it('comes with an image of its own where one is named, and not at all where it is switched off', () => {
    const own = podOf({ daemonset: { initContainer: { image: 'busybox:1.37' } } });
    expect(own.initContainers?.[0]?.image).toBe('busybox:1.37');
    const off = { seccomp: { deploy: false } };
    expect(podOf(off).initContainers).toBeUndefined();
    expect(render(off).map(({ metadata }) => metadata.name)).not.toContain('snapshot-seccomp');
  });
});
