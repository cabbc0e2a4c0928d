import type { Shaping } from '../../../../operator/graph/rollout.ts';

/** As it is by default. */
export const SHAPING: Shaping = { seccompProfile: 'profiles/block-iouring.json', placeholder: 'standby' };
