import { describe, expect, it } from 'vitest';
import { asks, eventually, inSource, NODE, NOTE, useStage } from './kubernetes-source/stage.ts';

const { stage, followed, run, note } = useStage();

describe('what the server is asked for', () => {
  const asked = () => stage.api.calls().map(({ path, query }) => [path.split('?')[0], query] as const);

  it('is the pods of this node alone that ask for something, of all namespaces', async () => {
    run('here');
    run('there', { namespace: 'other' });
    run('elsewhere', { nodeName: 'node-2' });
    run('plain', { labels: {} });
    const { pods: source } = await followed();
    expect(
      inSource(source)
        .map(({ key }) => key)
        .sort(),
    ).toEqual(['demo/here', 'other/there']);
    expect(asked().map(([path]) => path)).toEqual(['/api/v1/pods', '/api/v1/pods']);
    for (const [, query] of asked()) {
      expect(query.get('fieldSelector')).toBe(`spec.nodeName=${NODE}`);
      expect(query.get('labelSelector')).toBe(Object.keys(asks)[0]);
    }
    expect(asked().at(-1)?.[1].get('allowWatchBookmarks')).toBe('true');
  });

  it('is the pods of one namespace, with rights in that one alone', async () => {
    const rules = [{ apiGroups: [''], resources: ['pods'], verbs: ['list', 'watch'] }];
    stage.api.setRoles([{ kind: 'Role', metadata: { namespace: 'demo' }, rules }]);
    run('here');
    run('there', { namespace: 'other' });
    const { pods: source, losses } = await followed({ namespace: 'demo' });
    note('here', 'changed');
    stage.api.patch('pods', 'other/there', { metadata: { annotations: { [NOTE]: 'changed' } } });
    await eventually(() => expect([...source.pods()][0]?.annotations[NOTE]).toBe('changed'));
    expect(inSource(source).map(({ key }) => key)).toEqual(['demo/here']);
    expect(new Set(asked().map(([path]) => path))).toEqual(new Set(['/api/v1/namespaces/demo/pods']));
    expect(asked()[0]?.[1].get('fieldSelector')).toBe(`spec.nodeName=${NODE}`);
    expect(losses()).toEqual([]);
  });
});
