import { z } from 'zod';

/** The part of a Job's status that says whether it has ended. */
export const jobStatus = z.looseObject({
  conditions: z
    .array(
      z.looseObject({
        type: z.string(),
        status: z.string(),
        reason: z.string().optional(),
        message: z.string().optional(),
      }),
    )
    .nullish(),
});

/** The condition `Complete` or `Failed` of a Job that has ended; undefined while it works. */
export function endOfJob(status: z.infer<typeof jobStatus> | null | undefined) {
  return (status?.conditions ?? []).find(
    (one) => one.status === 'True' && (one.type === 'Complete' || one.type === 'Failed'),
  );
}
