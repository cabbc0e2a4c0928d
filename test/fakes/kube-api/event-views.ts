import type { Json, KubeObject } from './resources.ts';

/** The group whose events are another view of the ones in the core group. */
export const EVENTS_GROUP = 'events.k8s.io';

/** Field of events.k8s.io, and its name in the core group, which the store keeps. */
const NAMES: readonly (readonly [view: string, core: string])[] = [
  ['regarding', 'involvedObject'],
  ['note', 'message'],
  ['reportingController', 'reportingComponent'],
  ['deprecatedSource', 'source'],
  ['deprecatedFirstTimestamp', 'firstTimestamp'],
  ['deprecatedLastTimestamp', 'lastTimestamp'],
  ['deprecatedCount', 'count'],
];

const renamed = (object: Json, names: ReadonlyMap<string, string>): Json =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [names.get(key) ?? key, value]));

/** An event of events.k8s.io/v1, or a merge patch of one, as the store keeps it. What is no object stays as it is. */
export function toCoreEvent(view: unknown): unknown {
  if (typeof view !== 'object' || view === null || Array.isArray(view)) return view;
  const core = renamed(view as Json, new Map(NAMES));
  return core['apiVersion'] === `${EVENTS_GROUP}/v1` ? { ...core, apiVersion: 'v1' } : core;
}

/** A stored event as events.k8s.io/v1 shows it. */
export const toEventView = (stored: KubeObject | Json): Json => ({
  ...renamed(stored as Json, new Map(NAMES.map(([view, core]) => [core, view]))),
  apiVersion: `${EVENTS_GROUP}/v1`,
});
