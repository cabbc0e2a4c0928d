import type { Reason } from '../../errors.ts';
import { mountReasons } from './admission-mounts.ts';
import { confinementReasons, privilegeReasons } from './admission-privileges.ts';
import { type AdmissionTarget, FOREIGN, type Images, list } from './admission-subject.ts';
import { readMounts } from './mounts.ts';
import { checkPages } from './pagemap.ts';
import { type Process, readInventory, readProcesses, readSeccompFilters } from './processes.ts';
import { readResources } from './resources.ts';

export type { AdmissionTarget, Images } from './admission-subject.ts';

/**
 * What the images may ask for. CRIU restores with full privileges whatever they say, and they come from a volume: before CRIU sees
 * them it is checked that nothing in them exceeds what the target container may do anyway.
 */

/** Reads what admission judges. Throws ARTIFACT_CORRUPT for images that are malformed or contradict themselves. */
export async function readImages(dir: string, knownNames: readonly string[] = []): Promise<Images> {
  await checkPages(dir);
  return {
    inventory: await readInventory(dir),
    processes: await readProcesses(dir),
    mounts: await readMounts(dir),
    seccompChain: await readSeccompFilters(dir),
    resources: await readResources(dir, knownNames),
  };
}

function resourceReasons({ resources, mounts, inventory }: Images, target: AdmissionTarget): Reason[] {
  const reasons: Reason[] = [];
  const refuse = (code: string, message: string, found: string, wanted: string) =>
    reasons.push({ code, message, found, wanted, advice: FOREIGN });
  const mountKeys = mounts.flatMap((mount) => (mount.externalKey === undefined ? [] : [`mnt[${mount.externalKey}]`]));
  const unknown = [...mountKeys, ...resources.externalKeys].filter((key) => !target.externalKeys.includes(key));
  if (unknown.length > 0) {
    refuse(
      'EXTERNAL_UNKNOWN',
      'the images refer to external resources that the agent does not provide',
      list(unknown),
      list(target.externalKeys),
    );
  }
  if (resources.devices.length > 0)
    refuse('DEVICE_NODE', 'the images carry device nodes', list(resources.devices), 'none');
  if (resources.unknownImages.length > 0) {
    refuse(
      'IMAGE_UNEXPECTED',
      'the directory holds files that no dump of this agent has',
      list(resources.unknownImages),
      'none',
    );
  }
  if (resources.privateNetwork)
    refuse('NETWORK_PRIVATE', 'the images bring a network namespace of their own', 'private', "the pod's");
  if (resources.apparmorPolicy) refuse('APPARMOR_POLICY', 'the images would load AppArmor policy', 'policy', 'none');
  if (inventory.plugins.length > 0)
    refuse('PLUGIN_USED', 'the images need CRIU plugins', list(inventory.plugins), 'none');
  return reasons;
}

function treeReasons(processes: readonly Process[]): Reason[] {
  const roots = processes.filter((process) => process.ppid === 0);
  const living = roots.length === 1 && roots[0]?.credentials.length !== 0;
  if (living) return [];
  return [
    {
      code: 'PROCESS_ROOT',
      message: 'the images do not have exactly one living root process',
      found: list(roots.map((process) => `${process.comm}[${process.pid}] ${process.state}`)),
      wanted: 'one',
      advice: FOREIGN,
    },
  ];
}

/** Every reason why these images may not be restored into this target; empty where they may. */
export function admissionProblems(images: Images, target: AdmissionTarget): Reason[] {
  return [
    ...treeReasons(images.processes),
    ...mountReasons(images, target),
    ...privilegeReasons(images, target),
    ...confinementReasons(images, target),
    ...resourceReasons(images, target),
  ];
}
