import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SENTINELS } from '../../contract/keys.ts';
import { CHART, only, render } from '../chart/render.ts';
import { type Authority, makeAuthority } from '../flow/grpc/certificates.ts';
import { connectTo } from '../flow/grpc/client.ts';
import { PLACEHOLDERS, released } from './agent-pod-scenario.ts';
import { AgentDaemonSet, type AgentPod } from './environment/agent-daemonset.ts';
import { importAgentImage } from './environment/agent-image.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container } from './environment/container.ts';
import { workload } from './environment/pod.ts';
import { markReady, runSource, runTarget, type SourceRequest } from './scenario.ts';

/** What the chart's values change about the pods that run: not only in what is rendered, but in what then happens. */

interface CredentialsJob {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly securityContext: { readonly runAsUser: number; readonly runAsGroup: number };
        readonly containers: readonly [
          { readonly image: string; readonly command: readonly string[]; readonly args: readonly string[] },
        ];
      };
    };
  };
}

/** A seccomp profile, as the runtime reads it. */
interface Seccomp {
  readonly defaultAction: string;
  readonly syscalls: readonly { readonly names: string[]; readonly action: string; readonly args?: unknown[] }[];
}

let cluster: Cluster;
let agent: AgentPod;

beforeAll(async () => {
  cluster = await Cluster.start();
  await importAgentImage(cluster);
  agent = await new AgentDaemonSet(cluster).startPod();
}, 600_000);
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

/** A worker goes through a checkpoint and a restore, and is the same afterwards. Returns its new first process. */
async function moved(request: Partial<SourceRequest>): Promise<number> {
  const source = await runSource(cluster, { command: workload('memory', '8'), ...request });
  const before = await source.container.check();
  await markReady(source.container);
  await released(agent, source.container, SENTINELS.complete);
  await source.pod.remove();
  const target = await runTarget(cluster, source, { command: PLACEHOLDERS['snapshot-standby'], ...request });
  await released(agent, target.container, SENTINELS.restored);
  expect(await target.container.check()).toMatchObject({ check: 'ok', digest: before['digest'] });
  return target.container.workloadPid();
}

describe('the Job of the credentials', () => {
  test('starts as the chart has it: without root, any capability and anything to write to', async () => {
    const { spec } = only(render({ api: { tcp: { enabled: true } } }), 'Job') as unknown as CredentialsJob;
    const { securityContext, containers } = spec.template.spec;
    const [{ image: name, command, args }] = containers;
    expect(securityContext).toMatchObject({
      runAsUser: expect.any(Number),
      seccompProfile: { type: 'RuntimeDefault' },
    });
    const pod = await cluster.runPod({ name: 'credentials' });
    const container = await pod.run({
      ...{ image: name, command, args: [...args, '--help'], control: false, readOnlyRoot: true },
      ...{ user: securityContext.runAsUser, group: securityContext.runAsGroup, seccomp: 'RuntimeDefault' },
      ...{ dropCapabilities: ['ALL'], noNewPrivileges: true },
    });
    const { exit_code } = await container.ended();
    const said = container.logs().map(({ text }) => text);
    expect([exit_code, said.join('\n')]).toEqual([0, expect.stringContaining('snapshotctl credentials ensure')]);
    await pod.remove();
  });
});

describe('the seccomp profile that it puts on the node', () => {
  const onNode = () => join(cluster.directory, 'agents/kubelet/seccomp/profiles/block-iouring.json');
  const profile = () => JSON.parse(readFileSync(onNode(), 'utf8')) as Seccomp;
  const allowed = ({ syscalls }: Seccomp) =>
    syscalls.filter(({ action, args }) => action === 'SCMP_ACT_ALLOW' && !args?.length).flatMap(({ names }) => names);

  /** What a call of this number is answered with, inside a container. */
  async function errnoOf(container: Container, call: number): Promise<string> {
    const code = `import ctypes, errno; c = ctypes.CDLL(None, use_errno=True); c.syscall(${call}, 1, 0); print(errno.errorcode[ctypes.get_errno()])`;
    return (await container.exec('/usr/bin/python3', '-c', code)).stdout.trim();
  }

  test('is that of the chart, and the directory has nothing else', () => {
    expect(readFileSync(onNode(), 'utf8')).toBe(readFileSync(join(CHART, 'files/block-iouring.json'), 'utf8'));
    expect(readdirSync(dirname(onNode()))).toEqual(['block-iouring.json']);
  });

  test("allows nothing that the runtime's own does not, but to place memory on NUMA nodes", async () => {
    const pod = await cluster.runPod({ name: 'default-profile' });
    const container = await pod.run({ command: ['/usr/bin/sleep', 'infinity'], seccomp: 'RuntimeDefault' });
    const task = join(cluster.directory, 'state/io.containerd.runtime.v2.task/k8s.io', container.id, 'config.json');
    const { linux } = JSON.parse(readFileSync(task, 'utf8')) as { linux: { seccomp: Seccomp } };
    await pod.remove();
    const [ours, theirs] = [allowed(profile()), allowed(linux.seccomp)];
    expect(profile().defaultAction).toBe('SCMP_ACT_ERRNO');
    expect(ours.filter((name) => !theirs.includes(name)).sort()).toEqual([
      'get_mempolicy',
      'mbind',
      'set_mempolicy',
      'set_mempolicy_home_node',
    ]);
    expect(ours.filter((name) => name.startsWith('io_uring'))).toEqual([]);
    // Calls that depend on their arguments: the same in both.
    const conditional = ({ syscalls }: Seccomp) =>
      syscalls.filter(({ args }) => args?.length).map(({ names, action, args }) => ({ names, action, args }));
    expect(conditional(profile())).toEqual(conditional(linux.seccomp));
  });

  test('keeps a workload from io_uring, and does not keep it from being checkpointed and restored', async () => {
    const source = await runSource(cluster, { command: workload('memory', '8'), seccomp: onNode() });
    const [setup, register] = [425, 427];
    expect(await errnoOf(source.container, setup)).toBe('EPERM');
    expect(await errnoOf(source.container, register)).toBe('EPERM');
    await source.pod.remove();
    const pid = await moved({ seccomp: onNode() });
    expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^Seccomp:\t2$/m);
  });
});

describe('a pod of the DaemonSet in podMount mode, with TLS', () => {
  let authority: Authority;

  test('starts with its certificates, and without a volume', async () => {
    await agent.delete();
    authority = await makeAuthority(cluster.directory, 'authority');
    const { cert, key } = await authority.issue('snapshot-agent');
    const values = {
      storage: { accessMode: 'podMount' },
      gpu: { enabled: false },
      rbac: { namespaceRestricted: false },
      api: { tcp: { enabled: true } },
    };
    const tls = { 'tls.crt': cert, 'tls.key': key, 'ca.crt': authority.certificate };
    const daemonSet = new AgentDaemonSet(cluster, values, { 'snapshot-agent-tls': tls });
    expect(daemonSet.manifest.pod.volumes.map(({ name }) => name)).not.toContain('checkpoints');
    agent = await daemonSet.startPod();
    await agent.waitForLog('its start', ({ msg }) => msg === 'started');
  });

  test('lets the operator call', async () => {
    const { key, cert } = await authority.issue('snapshot-operator');
    const tls = credentials.createSsl(authority.certificate, key, cert);
    const { client, ask } = connectTo(agent.address('grpc'), tls, {
      'grpc.ssl_target_name_override': 'snapshot-agent',
    });
    expect(await ask('GetNodeInfo')).toMatchObject({ node: 'test-node', access_mode: 'ACCESS_MODE_POD_MOUNT' });
    client.close();
  });

  test('checkpoints and restores through the volumes of the workloads', async () => {
    expect(await moved({ volume: cluster.volume })).toBeGreaterThan(0);
  });
});
