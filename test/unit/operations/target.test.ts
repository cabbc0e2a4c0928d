import { describe, expect, it } from 'vitest';
import { SnapshotError } from '../../../agent/errors.ts';
import { killContainer } from '../../../agent/operations/target.ts';
import type { Runtime } from '../../../agent/watch/runtime.ts';
import { fakeNative } from '../../fakes/native.ts';

/** A container whose process the runtime gives like this, one answer after the other. */
function setting(...answers: readonly (number | SnapshotError)[]) {
  const left = [...answers];
  const native = fakeNative({
    procRoot: '/none',
    processes: [
      { pid: 10, start: 1 },
      { pid: 11, start: 2 },
    ],
  });
  const running = async () => {
    const answer = left.shift() ?? expect.fail('it is asked for no more than it needs');
    if (answer instanceof SnapshotError) throw answer;
    return { id: 'c', hostPid: answer };
  };
  return { ...native, context: { native: native.native, runtime: { running } as unknown as Runtime } };
}

describe('the process of a container', () => {
  it('is acted on when the runtime gives the same before and after it was pinned, and let go afterwards', async () => {
    const { context, asked, held } = setting(10, 10);
    await killContainer(context, 'c');
    expect(asked).toEqual([
      ['pin', 10, undefined],
      ['ask', 10, 'signal 9'],
    ]);
    expect([...held]).toEqual([]);
  });

  it('that is another one a moment later is not touched: the container was started again', async () => {
    const { context, asked, held } = setting(10, 11);
    await expect(killContainer(context, 'c')).rejects.toMatchObject({ code: 'CONTAINER_GONE' });
    expect(asked).toEqual([['pin', 10, undefined]]);
    expect([...held]).toEqual([]);
  });

  it('that has ended when the runtime is asked again is not touched', async () => {
    const { context, asked, held } = setting(10, new SnapshotError('CONTAINER_NOT_FOUND', 'it is not running'));
    await expect(killContainer(context, 'c')).rejects.toMatchObject({ code: 'CONTAINER_NOT_FOUND' });
    expect(asked).toEqual([['pin', 10, undefined]]);
    expect([...held]).toEqual([]);
  });

  it('that cannot be pinned, a zombie or one that is gone, is not touched', async () => {
    const { context, asked } = setting(12);
    await expect(killContainer(context, 'c')).rejects.toThrow('no process 12');
    expect(asked).toEqual([['pin', 12, undefined]]);
  });
});
