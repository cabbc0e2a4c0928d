import { createHash } from 'node:crypto';

/** Labels with the name of a Job are put on its pods: it may be no longer than the value of a label. */
const MAX_LENGTH = 63;
const HASH_DIGITS = 10;
const LEGAL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** The DynamoCheckpoint that is made for a worker generation. */
export function automaticCheckpointName(checkpointId: string): string {
  return legalName(`checkpoint-${checkpointId}`);
}

/** The Job that deletes the artifacts of a checkpoint where no agent can. */
export function cleanupJobName(checkpointId: string): string {
  return legalName(`checkpoint-cleanup-${checkpointId}`);
}

/**
 * The name itself where Kubernetes takes it. Ids and versions may be longer, have capitals and underscores: such a name is made legal, and
 * ends in digits of the hash of what it was, so that no two become the same.
 */
export function legalName(name: string): string {
  if (name.length <= MAX_LENGTH && LEGAL.test(name)) return name;
  const suffix = createHash('sha256').update(name).digest('hex').slice(0, HASH_DIGITS);
  const plain = name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, MAX_LENGTH - HASH_DIGITS - 1);
  return [plain.replace(/^-+|-+$/g, ''), suffix].filter((part) => part !== '').join('-');
}
