import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as grpc from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { eventually, inSource, NOTE, onServer, useStage } from './kubernetes-source/stage.ts';

const { stage, followed, bind, run, note } = useStage();
setFlagsFromString('--expose-gc');
const NO_LABELS = { metadata: { labels: null } };
const collectGarbage = runInNewContext('gc') as () => void;

describe('a node with many pods', () => {
  it('has the runtime asked no more for 10,000 updates of 500 pods that run', async () => {
    const names = Array.from({ length: 500 }, (_, index) => `pod-${index}`);
    for (const name of names) run(name);
    const { pods, looks, told } = await followed({ timings: { pageSize: 500 } });
    looks.length = 0;
    for (let round = 1; round <= 20; round += 1) {
      for (const name of names) note(name, `round ${round}`);
      await eventually(() => {
        for (const pod of pods.pods()) expect(pod.annotations[NOTE]).toBe(`round ${round}`);
      });
    }
    expect(told).toHaveLength(10_000);
    expect(looks).toEqual([]);
    expect(inSource(pods)).toEqual(onServer(stage));
  });

  it('neither tells of nor keeps anew what changes for others only', async () => {
    const uid = run('web');
    const { pods, told } = await followed();
    const before = pods.pod(uid);
    for (let update = 1; update <= 1_000; update += 1)
      stage.api.patch('pods', 'demo/web', { metadata: { annotations: { 'example.com/note': `${update}` } } });
    // Comes last: what was sent before it was read.
    note('web', 'last');
    await eventually(() => expect(pods.pod(uid)?.annotations[NOTE]).toBe('last'));
    expect(told).toEqual([uid]);
    stage.api.patch('pods', 'demo/web', { metadata: { annotations: { 'example.com/note': 'more' } } });
    const kept = pods.pod(uid);
    const other = run('other');
    await eventually(() => expect(pods.pod(other)?.containers).toHaveLength(1));
    // Handed out as it is kept.
    expect(pods.pod(uid)?.annotations).toBe(kept?.annotations);
    expect(kept?.annotations).not.toBe(before?.annotations);
  });

  it('has the runtime asked a few times for many updates of a pod that is still to come up', async () => {
    const { pods, looks } = await followed();
    const uid = bind('web');
    stage.kubelet.admit('demo/web');
    await eventually(() => expect(pods.pod(uid)).toBeDefined());
    looks.length = 0;
    for (let update = 1; update <= 2_000; update += 1) note('web', `${update}`);
    await eventually(() => expect(pods.pod(uid)?.annotations[NOTE]).toBe('2000'));
    expect(looks.length).toBeLessThan(200);
  });

  it.each<[string, (name: string) => void | Promise<void>]>([
    ['are deleted', (name) => void stage.api.remove('pods', `demo/${name}`)],
    ['no longer ask for anything', (name) => void stage.api.patch('pods', `demo/${name}`, NO_LABELS)],
    [
      'go while the watch is away, with the history that would tell of it',
      async (name) => {
        await stage.api.goAway();
        stage.api.remove('pods', `demo/${name}`);
        stage.api.compact();
        await stage.api.comeBack();
      },
    ],
    [
      'go while the runtime is asked about them, and fails',
      async (name) => {
        stage.cri.faults.set('ListContainers', [grpc.status.UNAVAILABLE, grpc.status.UNAVAILABLE]);
        note(name, 'look');
        stage.cri.emit();
        stage.api.remove('pods', `demo/${name}`);
      },
    ],
  ])('keeps nothing of pods that %s', async (_, end) => {
    const stays = run('stays');
    const { pods } = await followed();
    const old: WeakRef<object>[] = [];
    const remember = (uid: string) => {
      const pod = pods.pod(uid);
      if (pod === undefined) throw new Error('it is there');
      // Both are handed out as they are kept. Pods without containers share one empty list.
      old.push(new WeakRef(pod.annotations));
      if (pod.containers.length > 0) old.push(new WeakRef(pod.containers));
    };
    for (let round = 1; round <= 5; round += 1) {
      const [running, coming] = [run(`running-${round}`), bind(`coming-${round}`)];
      await eventually(() => expect(pods.pod(running)?.containers).toHaveLength(1));
      await eventually(() => expect(pods.pod(coming)).toBeDefined());
      remember(running);
      remember(coming);
      for (const name of ['running', 'coming']) await end(`${name}-${round}`);
      stage.cri.drop(running);
      note('stays', `${round}`);
      await eventually(() => expect(inSource(pods)).toEqual(onServer(stage)));
    }
    await eventually(() => {
      collectGarbage();
      expect(old.filter((one) => one.deref() !== undefined)).toEqual([]);
    });
    expect([...pods.pods()].map(({ uid }) => uid)).toEqual([stays]);
  });
});
