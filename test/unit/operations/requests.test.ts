import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { AgentContext } from '../../../agent/operations/context.ts';
import { type Journal, openJournal } from '../../../agent/operations/journal.ts';
import { newRegistry } from '../../../agent/operations/registry.ts';
import { MAX_VERIFICATIONS, newRequests, resumeRequests } from '../../../agent/operations/requests.ts';
import type { AgentService, Caller } from '../../../agent/operations/service.ts';
import { KUBELET_LABELS } from '../../../contract/keys.ts';

const caller: Caller = { name: 'operator', namespaces: 'all' };
const target = { namespace: 'team', pod: 'worker', container: 'main', containerId: '' };
const storage = { through: target, basePath: '' };
const CONTAINER = {
  ...{ id: 'c', pod_sandbox_id: 's', state: 'CONTAINER_RUNNING', created_at: '1' },
  ...{ metadata: { name: 'main', attempt: 0 }, labels: { [KUBELET_LABELS.podNamespace]: 'team' }, annotations: {} },
};
const SANDBOX = {
  ...{ id: 's', state: 'SANDBOX_READY', created_at: '1', labels: {}, annotations: {} },
  metadata: { name: 'worker', namespace: 'team', uid: 'u', attempt: 0 },
};

/** Requests to an agent whose runtime answers through `containers`, and ends every look at one container. */
function requestsWith(containers: () => Promise<unknown[]>) {
  const looked: string[] = [];
  const runtime = {
    containers,
    sandboxes: () => Promise.resolve([SANDBOX]),
    running: (id: string) => {
      looked.push(id);
      return Promise.reject(new Error('looked at'));
    },
  };
  const context = { runtime, config: { storage: { accessMode: 'podMount', basePath: '' } } } as unknown as AgentContext;
  const desk = { ask: () => undefined, requireIdle: () => undefined };
  const nodeInfo = () => {
    throw new Error('not asked for');
  };
  return { service: newRequests({ context, registry: newRegistry(), desk, nodeInfo }), looked };
}

describe('the check of a restore', () => {
  const request = { target, storage, id: 'ckpt', version: '1' };

  it('looks at the container', async () => {
    const { service, looked } = requestsWith(() => Promise.resolve([CONTAINER]));
    await expect(service.checkRestore(request, caller, new AbortController().signal)).rejects.toThrow('looked at');
    expect(looked).toEqual(['c']);
  });

  it('that is cancelled goes no further', async () => {
    const stop = new AbortController();
    const { service, looked } = requestsWith(() => {
      stop.abort(new Error('the caller went away'));
      return Promise.resolve([CONTAINER]);
    });
    await expect(service.checkRestore(request, caller, stop.signal)).rejects.toThrow('the caller went away');
    expect(looked).toEqual([]);
  });
});

it('verifications are few at once: one more is refused until one has ended, well or not', async () => {
  let answer: (found: unknown[]) => void = () => undefined;
  const held = new Promise<unknown[]>((resolve) => {
    answer = resolve;
  });
  const { service, looked } = requestsWith(() => held);
  const verify = () =>
    service.verifyArtifact({ storage, id: 'ckpt', version: '1' }, caller, new AbortController().signal);
  const underWay = Array.from({ length: MAX_VERIFICATIONS }, verify);
  await expect(verify()).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED', retryable: true });
  answer([CONTAINER]);
  for (const one of underWay) await expect(one).rejects.toThrow('looked at');
  await expect(verify()).rejects.toThrow('looked at');
  expect(looked).toHaveLength(MAX_VERIFICATIONS + 1);
});

describe('a request id', () => {
  const tenant = (name: string, ...namespaces: string[]): Caller => ({ name, namespaces: new Set(namespaces) });
  const request = {
    ...{ requestId: 'first', target, checkpointId: 'ckpt', version: '1', basePath: '', waitSeconds: 60, traceId: '' },
    ...{ after: undefined, existing: 'adopt' as const },
  };
  let top: string;
  let journal: Journal;
  beforeEach(async () => {
    top = await mkdtemp(join(tmpdir(), 'requests-'));
    journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'boot' });
  });
  afterEach(async () => {
    await journal.close();
    await rm(top, { recursive: true });
  });

  /** An agent that starts with what the journal says; containers are never busy, and nothing is begun. */
  async function started(): Promise<AgentService> {
    const runtime = { containers: () => Promise.resolve([CONTAINER]), sandboxes: () => Promise.resolve([SANDBOX]) };
    const context = { runtime, journal } as unknown as AgentContext;
    const registry = newRegistry();
    const setup = { context, registry, desk: { ask: () => undefined, requireIdle: () => undefined } };
    await resumeRequests(setup);
    const nodeInfo = () => {
      throw new Error('not asked for');
    };
    return newRequests({ ...setup, nodeInfo });
  }

  it('is the callers own: what others use makes no difference, also after a restart', async () => {
    const [a, b] = [tenant('a', 'team'), tenant('b', 'team')];
    let service = await started();
    const ofA = await service.checkpoint(request, a);
    const other = { ...request, checkpointId: 'other' };
    const ofB = await service.checkpoint(other, b);
    expect(ofB.id).not.toBe(ofA.id);
    for (let restarts = 0; restarts < 2; restarts += 1) {
      expect((await service.checkpoint(request, a)).id).toBe(ofA.id);
      expect((await service.checkpoint(other, b)).id).toBe(ofB.id);
      await expect(service.checkpoint(other, a)).rejects.toMatchObject({ code: 'REQUEST_CONFLICT' });
      service = await started();
    }
  });

  it('that an agent wrote down before it kept who called is known to those who may see the operation', async () => {
    const { id } = await (await started()).checkpoint(request, { name: '', namespaces: 'all' });
    const service = await started();
    expect((await service.checkpoint(request, tenant('a', 'team'))).id).toBe(id);
    const other = { ...request, checkpointId: 'other' };
    await expect(service.checkpoint(other, tenant('a', 'team'))).rejects.toMatchObject({ code: 'REQUEST_CONFLICT' });
    await expect(service.checkpoint(request, tenant('b', 'elsewhere'))).rejects.toMatchObject({
      code: 'CONTAINER_NOT_FOUND',
    });
  });
});
