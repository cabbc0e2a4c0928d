import * as grpc from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { serverError } from '../fakes/kube-api/server.ts';
import { eventually, inSource, onServer, useStage } from './kubernetes-source/stage.ts';

const { stage, follow, followed, run, bind, note } = useStage();
const STALE_MS = 250;
/** The staleness of these tests is short: an idle watch must be heard of more often. */
const timings = { watchSeconds: 1 };
const NOT_LISTED = 'the Kubernetes API has not listed the pods of this node yet';
const SILENT = 'the Kubernetes API has not been heard of for too long';
const NO_RUNTIME = 'the runtime does not answer';

describe('a source of pods', () => {
  it('is stale until the API has listed them, whatever else the API answers', async () => {
    run('a');
    const fault = stage.api.fault({ verb: 'list' }, serverError());
    const { pods, looks } = follow({ staleMs: STALE_MS });
    expect(pods.staleReason()).toBe(NOT_LISTED);
    await eventually(() => expect(fault.hits).toBeGreaterThan(3));
    // The runtime has answered all this time.
    await eventually(() => expect(looks.length).toBeGreaterThan(1));
    expect([pods.staleReason(), pods.contactAgeSeconds(), inSource(pods)]).toEqual([NOT_LISTED, undefined, []]);
    fault.lift();
    await eventually(() => expect(pods.staleReason()).toBeUndefined());
    expect(inSource(pods)).toEqual(onServer(stage));
  });

  it('is stale during an outage of the API of five times what it may be silent, and fresh after it', async () => {
    const gone = run('gone');
    run('kept');
    const { pods, losses, changes } = await followed({ staleMs: STALE_MS });
    await stage.api.goAway();
    await eventually(() => expect(pods.staleReason()).toBe(SILENT));
    expect(pods.contactAgeSeconds()).toBeGreaterThanOrEqual(STALE_MS / 1000);
    stage.api.remove('pods', 'demo/gone');
    note('kept', 'changed');
    bind('new');
    stage.api.compact();
    await eventually(() => expect(pods.contactAgeSeconds()).toBeGreaterThan((5 * STALE_MS) / 1000));
    expect(new Set(losses())).toEqual(new Set(['reset', 'unreachable']));
    expect([pods.staleReason(), pods.pod(gone)?.name]).toEqual([SILENT, 'gone']);

    stage.api.fault({ verb: 'list' }, serverError(503), { times: 2 });
    await stage.api.comeBack({ forbiddenCalls: 2 });

    await eventually(() => expect(pods.staleReason()).toBeUndefined());
    await eventually(() => expect(inSource(pods)).toEqual(onServer(stage)));
    await eventually(() => expect(changes).toContain(gone));
  });

  it('is fresh while nothing happens, because watches end and begin', async () => {
    const { pods } = await followed({ staleMs: 2_000, timings });
    const opened = stage.api.calls({ verb: 'watch' }).length;
    const stale = new Set<string | undefined>();
    await eventually(() => {
      stale.add(pods.staleReason());
      expect(stage.api.calls({ verb: 'watch' }).length).toBeGreaterThan(opened + 2);
    });
    expect([...stale]).toEqual([undefined]);
  });

  it('counts the age of the contact from the last word of the API', async () => {
    run('a');
    const { pods } = await followed();
    await eventually(() => expect(pods.contactAgeSeconds()).toBeGreaterThan(0.2));
    const silentSeconds = pods.contactAgeSeconds() ?? 0;
    await eventually(() => {
      stage.api.watches.bookmark();
      expect(pods.contactAgeSeconds()).toBeLessThan(silentSeconds);
    });
  });

  it('is stale while the runtime does not answer, and looks at all that it missed when it does', async () => {
    const before = run('before');
    const { pods, emit, said } = await followed();
    stage.cri.faults.set('ListContainers', Array(2).fill(grpc.status.UNAVAILABLE));
    stage.cri.containers.set(`container-${before}`, {
      ...(stage.cri.containers.get(`container-${before}`) ?? expect.fail('it was started')),
      state: 'CONTAINER_EXITED',
    });
    emit('');
    await eventually(() => expect(pods.staleReason()).toBe(NO_RUNTIME));
    await eventually(() => expect(pods.staleReason()).toBeUndefined());
    expect(pods.pod(before)?.containers[0]?.state).toBe('exited');
    expect(said(NO_RUNTIME).map(({ failures }) => failures)).toEqual([1, 2]);
  });

  it('is fresh again though the pod is gone that the runtime did not answer about', async () => {
    const { pods, looks } = await followed();
    stage.cri.faults.set('ListContainers', [grpc.status.UNAVAILABLE]);
    const uid = bind('a');
    await eventually(() => expect(pods.staleReason()).toBe(NO_RUNTIME));
    stage.api.remove('pods', 'demo/a');
    await eventually(() => expect(pods.staleReason()).toBeUndefined());
    expect(pods.pod(uid)).toBeUndefined();
    expect(looks.at(-1)).toBe('all');
  });

  it('is stale before the runtime has answered for the first time', async () => {
    stage.cri.faults.set('ListPodSandbox', Array(3).fill(grpc.status.UNAVAILABLE));
    run('a');
    const { pods, states } = follow();
    await eventually(() => expect(states.some(({ kind }) => kind === 'listed')).toBe(true));
    expect(pods.staleReason()).toBe(NO_RUNTIME);
    await eventually(() => expect(pods.staleReason()).toBeUndefined());
  });

  it('notices a runtime that goes away without being asked, and takes its events again when it is back', async () => {
    const uid = run('a');
    const { pods } = await followed();
    await stage.cri.stop();
    await eventually(() => expect(pods.staleReason()).toBe(NO_RUNTIME));
    stage.cri.drop(uid);
    await stage.cri.start();
    await eventually(() => expect(pods.staleReason()).toBeUndefined());
    expect(pods.pod(uid)?.containers).toEqual([]);
    await eventually(() => expect(stage.cri.openStreams).toBe(1));
  });
});

describe('the end of a source of pods', () => {
  it('comes at once with the signal, in the middle of an outage of both sides', async () => {
    run('a');
    const { losses, following } = await followed();
    await stage.api.goAway();
    await stage.cri.stop();
    await eventually(() => expect(losses()).toContain('unreachable'));
    stage.stop.abort();
    await following;
  });

  it('is what its listener throws, whoever told', async () => {
    const { api, stop } = stage;
    const { pods } = await followed();
    stop.abort();
    await stage.running;
    const odd = new RangeError('odd');
    const failing = pods.run(() => {
      throw odd;
    }, new AbortController().signal);
    // First one that the API tells of, and that the runtime is asked about.
    bind('a');
    await expect(failing).rejects.toBe(odd);
    await eventually(() => expect(api.watches.count()).toBe(0));
    expect(stage.cri.openStreams).toBe(0);
  });
});
