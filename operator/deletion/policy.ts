import { idProblem } from '../../contract/ids.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import type { ObjectMeta } from '../../contract/object-meta.ts';

/** Keeps a DynamoCheckpoint until its artifacts are deleted. */
export const FINALIZER = 'nvidia.com/snapshot-artifacts';

export interface Policy {
  readonly artifacts: 'Delete' | 'Retain';
  /** The annotation says something else than the two: then nothing is deleted. */
  readonly problem?: string;
}

type Noted = Pick<ObjectMeta, 'annotations'>;

/** What becomes of the artifacts when the object is deleted: what its annotation says, else Delete for automatic ones alone. */
export function policyOf({ annotations = {} }: Noted): Policy {
  const said = annotations[ANNOTATIONS.deletionPolicy]?.trim() ?? '';
  if (said === 'Delete' || said === 'Retain') return { artifacts: said };
  if (said !== '')
    return {
      artifacts: 'Retain',
      problem: `annotation ${ANNOTATIONS.deletionPolicy} "${said}" is neither Delete nor Retain: artifacts are kept`,
    };
  return { artifacts: annotations[ANNOTATIONS.autoCheckpoint] === 'true' ? 'Delete' : 'Retain' };
}

/** The artifact version that the object asks for. */
function versionOf({ annotations = {} }: Noted): string {
  return annotations[ANNOTATIONS.artifactVersion]?.trim() || DEFAULT_ARTIFACT_VERSION;
}

/** Each costs some calls at every look, and whoever may write the object may write the annotation. Agents list what is older. */
const MAX_VERSIONS = 50;

/** The last versions that the object had, the one that it asks for last. What cannot be a version has no artifact, and is left out. */
export function versionsOf(meta: Noted): readonly string[] {
  const noted = (meta.annotations?.[ANNOTATIONS.artifactVersions] ?? '').split(',');
  const now = versionOf(meta);
  const former = new Set(noted.filter((version) => version !== now && idProblem(version) === undefined));
  return [...[...former].slice(1 - MAX_VERSIONS), ...(idProblem(now) === undefined ? [now] : [])];
}
