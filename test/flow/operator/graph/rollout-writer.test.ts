import { describe, expect, it } from 'vitest';
import { componentTemplate } from '../../../../operator/graph/component.ts';
import { wishOf } from '../../../../operator/graph/rollout.ts';
import { applyWish } from '../../../../operator/graph/rollout-writer.ts';
import { autoGraph, componentOf } from '../../../unit/operator/graph/samples.ts';
import { SHAPING } from '../../../unit/operator/graph/shaping.ts';
import { useControl } from '../stage.ts';

const { stage } = useControl();
const NAME = 'vllm-auto-demo-frontend';
const signal = new AbortController().signal;
const frontend = (image: string, replicas = 1) => {
  const at = 'spec.services.Frontend';
  return componentOf(
    autoGraph({}, { [`${at}.extraPodSpec.mainContainer.image`]: image, [`${at}.replicas`]: replicas }),
    'Frontend',
  );
};
const apply = (component: ReturnType<typeof frontend>) => {
  const parts = { client: stage.client, deployments: { remember: () => undefined } };
  const wish = wishOf(component, { kind: 'cold' }, SHAPING);
  return applyWish(parts, { component, wish, current: undefined }, signal);
};
const stored = () => stage.api.get('deployments', `team/${NAME}`);

describe('a Deployment that the cache does not have yet', () => {
  it('is made once, and one that was made from an older object is brought up to date', async () => {
    expect(await apply(frontend('a'))).toMatchObject({ result: 'applied', isMade: true });
    const { uid } = stored()?.metadata ?? {};
    expect(await apply(frontend('a'))).toMatchObject({ result: 'applied', isMade: false });
    expect(await apply(frontend('b', 3))).toMatchObject({ result: 'applied', isMade: false });
    expect(stored()).toMatchObject({
      metadata: { uid },
      spec: { replicas: 3, template: { spec: { containers: [{ name: 'main', image: 'b' }] } } },
    });
    expect(stored()?.spec?.['template']).toMatchObject({
      metadata: { labels: componentTemplate(frontend('b')).metadata.labels },
    });
  });

  it('is left where somebody else made it, and what the server refuses is a problem and no failure', async () => {
    stage.api.put({ kind: 'Deployment', metadata: { name: NAME, namespace: 'team' }, spec: { replicas: 9 } });
    expect(await apply(frontend('a'))).toEqual({
      result: 'refused',
      problem: `Deployment team/${NAME} is there, and is not ours`,
    });
    expect(stored()?.spec).toMatchObject({ replicas: 9 });
    stage.api.fault(
      { verb: 'create', resource: 'deployments' },
      { kind: 'refuse', code: 422, message: 'no such field', reason: 'Invalid' },
    );
    expect(await apply(frontend('a'))).toMatchObject({
      result: 'refused',
      problem: expect.stringContaining('no such field'),
    });
  });
});
