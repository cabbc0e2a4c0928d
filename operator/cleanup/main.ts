import { clean } from './clean.ts';

/*
 * snapshot-cleanup: removes the artifacts of one checkpoint from the volume that is mounted here. The operator starts it as a Job where no agent
 * reaches the volume.
 */

const USAGE = `usage: CHECKPOINT_BASE_PATH=PATH CHECKPOINT_ID=ID CHECKPOINT_NAMESPACE=NAMESPACE snapshot-cleanup

Removes PATH/ID with all its versions, but for those that another namespace made, as their records say.
Restores that read one are waited for. Exit status: 0 done, 1 failed, 2 wrong usage, 3 still in use.
`;
/** The Job has 300 s. */
const WAIT_MS = 240_000;

const say = (line: string) => process.stdout.write(`${line}\n`);

async function main(): Promise<number> {
  const { CHECKPOINT_BASE_PATH: basePath, CHECKPOINT_ID: checkpointId, CHECKPOINT_NAMESPACE: namespace } = process.env;
  if (!basePath?.startsWith('/') || !checkpointId || !namespace) {
    process.stderr.write(USAGE);
    return 2;
  }
  const cleaned = await clean({ basePath, checkpointId, namespace, waitMs: WAIT_MS, say });
  if (cleaned.result === 'in-use') return 3;
  say(`checkpoint ${checkpointId}: nothing of namespace ${namespace} is left`);
  return 0;
}

main().then(
  (status) => {
    process.exitCode = status;
  },
  (error: unknown) => {
    process.stderr.write(`snapshot-cleanup: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  },
);
