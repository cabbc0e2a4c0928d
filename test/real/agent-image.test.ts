import { readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SENTINELS } from '../../contract/keys.ts';
import { startKubeApi } from '../fakes/kube-api/server.ts';
import { programAt } from '../flow/snapshotctl-agents/program.ts';
import { putAgent } from '../flow/snapshotctl-agents/stage.ts';
import { isEnd, PLACEHOLDERS, released } from './agent-pod-scenario.ts';
import { AgentDaemonSet, type AgentPod } from './environment/agent-daemonset.ts';
import { type ImageConfig, importAgentImage } from './environment/agent-image.ts';
import { Cluster } from './environment/cluster.ts';
import type { JsonLine } from './environment/container.ts';
import { eventually, host, REPOSITORY } from './environment/host.ts';
import { workload } from './environment/pod.ts';
import { namespaceOf, processes } from './environment/processes.ts';
import {
  artifactPath,
  markReady,
  readRecord,
  runSource,
  runTarget,
  type Source,
  sentinel,
  type Target,
} from './scenario.ts';

const deploy = (name: string) => resolve(REPOSITORY, 'deploy', name);
const { version: VERSION } = JSON.parse(readFileSync(resolve(REPOSITORY, 'package.json'), 'utf8')) as {
  version: string;
};

let cluster: Cluster;
let daemonSet: AgentDaemonSet;
let image: ImageConfig;
let agent: AgentPod;

beforeAll(async () => {
  cluster = await Cluster.start();
  image = await importAgentImage(cluster);
  daemonSet = new AgentDaemonSet(cluster);
  agent = await daemonSet.startPod();
}, 600_000);
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

/** Runs a program in the agent's container. */
async function inAgent(...command: [string, ...string[]]): Promise<string> {
  const { stdout, stderr, exitCode } = await agent.container.exec(...command);
  if (exitCode !== 0)
    throw new Error(`${command.join(' ')} ended with ${exitCode} in the agent's container: ${stderr}`);
  return stdout.trim();
}

async function checkpointed(...command: Parameters<typeof workload>): Promise<Source> {
  const source = await runSource(cluster, { command: workload(...command) });
  await markReady(source.container);
  await released(agent, source.container, SENTINELS.complete);
  return source;
}

async function restored(source: Source, command: readonly string[]): Promise<Target> {
  const target = await runTarget(cluster, source, { command });
  await released(agent, target.container, SENTINELS.restored);
  return target;
}

test('snapshotctl reaches the agent from outside, by an exec of what the image has', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'ctl-'));
  const api = await startKubeApi();
  try {
    await agent.waitForLog('its gRPC service', (line) => line['msg'] === 'gRPC is served');
    const target = String(await agent.container.pid());
    putAgent(api, { namespace: 'snapshot', name: 'snapshot-agent-1', node: 'here' });
    // As a runtime execs: in the container's namespaces and root, with its PATH, the command as it was asked for.
    const inside = ['--target', target, '--all', '--root', '--wd', 'env', `PATH=${pathOf(image)}`];
    api.serveExec(({ command }) => ({ file: 'nsenter', args: [...inside, ...command] }));
    const program = programAt('dist/snapshotctl/snapshotctl.mjs');
    const kubeconfig = await api.writeKubeconfig(directory);
    const { code, out } = await program.run(['nodes', '--kubeconfig', kubeconfig, '-o', 'json']);
    expect(JSON.parse(out).nodes).toMatchObject([{ agentPod: { name: 'snapshot-agent-1' }, agentVersion: VERSION }]);
    expect(code).toBe(0);
  } finally {
    await api.close();
    await rm(directory, { recursive: true, force: true });
  }
});

/** Where the image's programs are found. */
function pathOf({ config }: ImageConfig): string {
  const env = (config['Env'] ?? []) as readonly string[];
  return env.find((one) => one.startsWith('PATH='))?.slice('PATH='.length) ?? '/usr/local/bin:/usr/bin:/bin';
}

describe('the image', () => {
  test('is for amd64 and says what it is, and the Dockerfile says the same', () => {
    const text = readFileSync(deploy('images/agent/Dockerfile'), 'utf8');
    const last = text.slice(text.lastIndexOf('\nFROM '));
    const all = (instruction: string) =>
      [...last.matchAll(new RegExp(`^${instruction} (.*)$`, 'gm'))].map(([, rest = '']) => rest);
    const labels = all('LABEL').map((rest) => /^([^=]+)="(.*)"$/.exec(rest)?.slice(1) ?? []);
    expect(image.architecture).toBe('amd64');
    expect(image.config).toEqual({
      User: all('USER')[0],
      Env: all('ENV').flatMap((rest) => rest.split(' ')),
      Entrypoint: JSON.parse(all('ENTRYPOINT')[0] ?? ''),
      Cmd: JSON.parse(all('CMD')[0] ?? ''),
      WorkingDir: all('WORKDIR')[0],
      StopSignal: all('STOPSIGNAL')[0],
      Labels: Object.fromEntries(labels),
    });
    expect(image.config['Labels']).toMatchObject({ 'org.opencontainers.image.version': VERSION });
    expect(daemonSet.manifest.pod.containers[0].image).toBe(`snapshot-agent:${VERSION}`);
  });

  test('lists the versions of what is in it', async () => {
    const [listed, criu, node] = await Promise.all([
      inAgent('cat', '/opt/snapshot-agent/versions.txt'),
      inAgent('criu', '--version'),
      inAgent('node', '--version'),
    ]);
    const versions = new Map(listed.split('\n').map((line) => line.split(' ') as [string, string]));
    expect(await inAgent('snapshot-agent', '--version')).toBe(versions.get('snapshot-agent'));
    expect(versions.get('snapshot-agent')).toBe(VERSION);
    expect(versions.get('criu')).toContain(/^Version: (\S+)/.exec(criu)?.[1]);
    expect(versions.get('node')).toContain(node.slice(1));
    expect(versions.has('libc6')).toBe(true);
  });

  test('has a snapshot-cuda that its own C library runs', async () => {
    const program = '/opt/snapshot-agent/native/build/snapshot-cuda';
    expect(await inAgent(program, '--version')).toBe(`snapshot-cuda ${VERSION}`);
    // No GPU here: it loads nothing, and says so.
    // It ends with its parent, and what starts it in a container for us does not wait: a shell does.
    const { stdout, exitCode } = await agent.container.exec('sh', '-c', `${program}; exit $?`);
    expect({ ...(JSON.parse(stdout) as object), exitCode }).toMatchObject({ reason: 'NO_LIBCUDA', exitCode: 3 });
  });

  test('has nothing of its build, and files that only root can change', async () => {
    const unwanted = ['cc', 'gcc', 'clang', 'ld', 'as', 'make', 'npm', 'python3', 'mmdebstrap', 'curl', 'wget'];
    expect(await inAgent('sh', '-c', `for one in ${unwanted.join(' ')}; do command -v $one; done; true`)).toBe('');
    expect(await inAgent('find', '/opt/snapshot-agent', '-perm', '/6022')).toBe('');
    const system = ['/bin/', '/etc', '/lib/', '/opt', '/root', '/sbin/', '/usr', '/var/cache', '/var/lib', '/var/mail'];
    expect(await inAgent('find', ...system, '-xdev', '!', '-type', 'l', '-perm', '/6002')).toBe('');
    expect(await inAgent('sh', '-c', 'grep -ri valid-until /etc/apt || true')).toBe('');
  });

  test('is refused on another architecture, by name', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'architecture-'));
    await writeFile(join(directory, 'dpkg'), '#!/bin/sh\necho arm64\n');
    await chmod(join(directory, 'dpkg'), 0o755);
    const resolved = host([
      'env',
      `PATH=${directory}:${process.env['PATH']}`,
      deploy('images/resolve-packages.sh'),
      'http://localhost:1/debian',
      deploy('images/agent/packages.txt'),
    ]);
    await expect(resolved).rejects.toThrow(/arm64.*amd64 only/);
    await rm(directory, { recursive: true });
  });
});

describe('a pod of the DaemonSet', () => {
  test('starts, and answers its probes', async () => {
    expect(await agent.waitForLog('its start', ({ msg }) => msg === 'started')).toMatchObject({ node: 'test-node' });
    for (const name of ['startupProbe', 'livenessProbe', 'readinessProbe'] as const)
      await eventually(`the ${name}`, async () => ((await agent.probe(name)) === 200 ? true : undefined), {
        explain: () => agent.explain(),
      });
  });

  test('is privileged, in the PID namespace of the node, in network and IPC namespaces of its own, with a root that nobody writes', async () => {
    const pid = await agent.container.pid();
    expect(namespaceOf(pid, 'pid')).toBe(namespaceOf(process.pid, 'pid'));
    for (const kind of ['net', 'ipc', 'mnt', 'uts'] as const)
      expect(namespaceOf(pid, kind)).not.toBe(namespaceOf(process.pid, kind));
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    expect(status).toMatch(/^Seccomp:\t0$/m);
    const bounding = BigInt(`0x${/^CapEff:\s*(\w+)$/m.exec(status)?.[1]}`);
    expect(bounding & (1n << 21n), 'CAP_SYS_ADMIN').not.toBe(0n);
    expect((await agent.container.exec('touch', '/opt/snapshot-agent/file')).stderr).toContain('Read-only file system');
    // The command has become the agent: whoever signals the container signals it.
    expect(readFileSync(`/proc/${pid}/comm`, 'utf8').trim()).toMatch(/^(node|MainThread)$/);
  });

  test.each(Object.entries(PLACEHOLDERS))('checkpoints a worker and restores it into %s', async (_, placeholder) => {
    const source = await runSource(cluster, { command: workload('memory', '24') });
    const before = await source.container.check();
    expect(before).toMatchObject({ check: 'ok' });
    await markReady(source.container);
    await released(agent, source.container, SENTINELS.complete);
    await source.pod.remove();
    const criu = (await inAgent('criu', '--version')).split('\n')[0]?.replace('Version: ', '');
    expect(JSON.stringify(readRecord(artifactPath(cluster.volume, source)))).toContain(criu);

    const target = await restored(source, placeholder);
    const after = await target.container.check();
    expect(after).toMatchObject({ check: 'ok', digest: before['digest'] });
    // It counts on from where it was.
    expect(Number(after['beats'])).toBeGreaterThanOrEqual(Number(before['beats']));
    await eventually('a further beat', async () =>
      Number((await target.container.check())['beats']) > Number(after['beats']) ? true : undefined,
    );
    await target.pod.remove();
  });

  test('leaves no zombie, although nobody in its container reaps for others', async () => {
    const source = await checkpointed('memory', '4');
    const target = await restored(source, PLACEHOLDERS['snapshot-standby']);
    const dead = () =>
      processes().filter(({ state, cgroups }) => state === 'Z' && cgroups.includes(agent.container.id));
    await eventually(
      'the end of every process that the agent started',
      () => (dead().length === 0 ? true : undefined),
      {
        explain: () => JSON.stringify(dead()),
      },
    );
    await Promise.all([source.pod.remove(), target.pod.remove()]);
  });
});

describe('when its pod is deleted', () => {
  test('the agent lets an operation end, restored workers live on, and the next pod takes them into its care', async () => {
    const source = await checkpointed('exits', '42');
    const targets = await Promise.all(Object.values(PLACEHOLDERS).map((command) => restored(source, command)));
    const roots = await Promise.all(targets.map(({ container }) => container.workloadPid()));

    const late = await runSource(cluster, { command: workload('memory', '256') });
    await markReady(late.container);
    await agent.waitForLog(
      'a step of the checkpoint',
      (line) => line['containerId'] === late.container.id && line['msg'] === 'step ended',
    );
    const { exit_code } = await agent.delete();
    expect(exit_code).toBe(0);
    const said = agent.logs();
    const at = (wanted: (line: JsonLine) => boolean) => said.findIndex(wanted);
    const end = at((line) => isEnd(line, late.container, 'operation succeeded'));
    expect(end).toBeGreaterThan(at(({ msg }) => msg === 'stopping'));
    expect(at(({ msg }) => msg === 'stopped')).toBeGreaterThan(end);
    expect(sentinel(late.container, SENTINELS.complete)).not.toBe('');
    expect(await late.container.check()).toMatchObject({ check: 'ok' });

    // The container is gone, and with it every mount that the agent had made.
    expect(processes().filter(({ cgroups }) => cgroups.includes(agent.container.id))).toEqual([]);
    for (const [index, { container }] of targets.entries()) {
      expect(await container.check()).toMatchObject({ check: 'ok' });
      expect(await container.workloadPid()).toBe(roots[index]);
    }

    agent = await daemonSet.startPod();
    await agent.waitForLog('its start', ({ msg }) => msg === 'started');
    for (const { container } of targets) {
      expect(await container.check()).toMatchObject({ check: 'ok' });
      await container.signal('SIGUSR2');
      expect(await container.ended()).toMatchObject({ exit_code: 42 });
    }
    // What the pod before it wrote is of use to this one: key, state and volume are the same.
    const again = await restored(late, PLACEHOLDERS['snapshot-standby']);
    expect(await again.container.check()).toMatchObject({ check: 'ok' });
  });
});
