import type { Shaping } from '../../../../operator/graph/rollout.ts';

/** As it is by default; workers get a variable, to see that they get what they should. */
export const SHAPING: Shaping = {
  seccompProfile: 'profiles/block-iouring.json',
  placeholder: 'standby',
  workerDefaults: (spec, targets) => ({
    ...spec,
    containers: spec.containers.map((one) =>
      targets.includes(one.name) ? { ...one, env: [...(one.env ?? []), { name: 'WORKER_DEFAULT', value: '1' }] } : one,
    ),
  }),
};
