import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import type { PodView } from '../../contract/pods.ts';
import { eventually, inSource, NOTE, onServer, useStage } from './kubernetes-source/stage.ts';

const { stage, followed, bind, run, note } = useStage();
setFlagsFromString('--expose-gc');
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

  it('keeps nothing of pods that are gone', async () => {
    const uid = run('stays');
    const { pods } = await followed();
    const old: WeakRef<object>[] = [];
    const remember = (pod: PodView | undefined) => {
      if (pod === undefined) throw new Error('it is there');
      // Both are handed out as they are kept.
      old.push(new WeakRef(pod.annotations), new WeakRef(pod.containers));
    };
    for (let round = 1; round <= 20; round += 1) {
      const other = run(`pod-${round}`);
      await eventually(() => expect(pods.pod(other)?.containers).toHaveLength(1));
      remember(pods.pod(other));
      stage.api.remove('pods', `demo/pod-${round}`);
      stage.cri.drop(other);
      note('stays', `${round}`);
      await eventually(() => expect(inSource(pods)).toEqual(onServer(stage)));
    }
    await eventually(() => {
      collectGarbage();
      expect(old.filter((one) => one.deref() !== undefined)).toEqual([]);
    });
    expect(pods.pod(uid)?.containers).toHaveLength(1);
  });
});
