import { expect, it } from 'vitest';
import { knownStorage, newAgentDaemonSetCache } from '../../../operator/storage/known.ts';
import { eventually } from '../kube/server.ts';
import { daemonSet } from './checkpoints/stage.ts';
import { useControl } from './stage.ts';

const { stage, run } = useControl();

it('the storage of a namespace is known as soon as it has agents, and while it has', async () => {
  const { client, log, metrics } = stage;
  const sets = newAgentDaemonSetCache({ client, log: log.log, metrics });
  run((signal) => sets.run(signal));
  const known = () => knownStorage({}, sets, 'demo');
  await sets.synced(stage.stop.signal);
  expect(known()).toEqual({ problem: 'no snapshot-agent daemonset found in namespace demo' });
  stage.api.put(daemonSet());
  await eventually(() =>
    expect(known()).toEqual({
      source: { accessMode: 'agentMount', claim: 'snapshot-pvc', basePath: '/checkpoints' },
    }),
  );
  stage.api.remove('daemonsets', 'demo/snapshot-agent');
  await eventually(() => expect(known()).toHaveProperty('problem'));
});
