import type { DaemonSet } from '../kube/objects.ts';
import { ShapingError } from './shaping-error.ts';
import type { StorageSource } from './storage-volume.ts';

/** How the DaemonSets of agents are found, as a label selector. */
export const AGENT_SELECTOR = 'app.kubernetes.io/component=snapshot-agent';
const AGENT_CONTAINER = 'agent';
/** The volume of an agent that mounts the artifacts itself. */
const AGENT_VOLUME = 'checkpoints';
const CONFIG_DIRECTORY = '/etc/snapshot';

/** The claim that an agent mounts the artifacts from, and where; undefined for an agent in podMount mode. */
export function agentClaim(daemonSet: DaemonSet): { claim: string; basePath: string } | undefined {
  const { volumes = [], containers = [] } = daemonSet.spec?.template.spec ?? {};
  const claim = volumes.find(({ name }) => name === AGENT_VOLUME)?.persistentVolumeClaim?.claimName;
  const agent = containers.find(({ name }) => name === AGENT_CONTAINER);
  const mount = agent?.volumeMounts?.find(({ name }) => name === AGENT_VOLUME);
  return claim === undefined || mount === undefined ? undefined : { claim, basePath: mount.mountPath };
}

/** The ConfigMap with an agent's configuration. */
export function agentConfigMap(daemonSet: DaemonSet): string | undefined {
  const { volumes = [], containers = [] } = daemonSet.spec?.template.spec ?? {};
  const agent = containers.find(({ name }) => name === AGENT_CONTAINER);
  const mount = agent?.volumeMounts?.find(({ mountPath }) => mountPath === CONFIG_DIRECTORY);
  return volumes.find(({ name }) => name === mount?.name)?.configMap?.name;
}

/** Where the agents of a namespace keep its artifacts: in the claim that their DaemonSet mounts. Throws ShapingError. */
export function namespaceStorage(daemonSets: readonly DaemonSet[], namespace: string): StorageSource {
  if (daemonSets.length === 0) throw new ShapingError(`no snapshot-agent daemonset found in namespace ${namespace}`);
  const found = daemonSets.map(agentClaim).find((each) => each !== undefined);
  if (found !== undefined) return { accessMode: 'agentMount', ...found };
  const names = daemonSets.map(({ metadata }) => metadata?.name ?? '').join(', ');
  throw new ShapingError(
    `snapshot-agent daemonset in ${namespace} does not mount a PVC-backed checkpoint volume (${names})`,
  );
}
