import { CommandError } from '../failure.ts';
import type { EnsureInput, Tries } from './ensure.ts';
import { planRecordKey, type RecordKeyWish, SETTLED_MS, signsNext } from './record-key-plan.ts';
import { nextRecordKeys, readRecordKeys } from './record-key-secret.ts';
import type { SecretReport } from './report.ts';

export interface RecordKeyWanted extends RecordKeyWish {
  readonly secret: string;
}

/** One look at the record key's Secret, and one step if one is due. Throws SecretChanged, CommandError. */
export async function ensureRecordKey(
  { secret: name, ...wish }: RecordKeyWanted,
  { secrets, nowMs: clock }: EnsureInput,
  { done }: Tries,
): Promise<readonly SecretReport[]> {
  const secret = await secrets.read(name);
  const holding = readRecordKeys(name, secret);
  const nowMs = clock();
  // Asked for once, changed once: the change that was under way may have been the one.
  const isRotatedAlready = done.has(name);
  const step = planRecordKey(holding, { ...wish, rotate: wish.rotate && !isRotatedAlready }, nowMs);
  if (step.kind === 'refuse') throw new CommandError('refused', `Secret ${name} cannot change its key: ${step.why}`);
  const signing = holding?.signing.id ?? '';
  if (step.kind === 'keep') {
    if (secret !== undefined) await secrets.label(secret);
    return [{ ...{ secret: name, state: 'unchanged', detail: `key ${signing} signs`, due: step.due } }];
  }
  const { content, id } = nextRecordKeys(secret, step, nowMs);
  if (step.kind === 'promote') done.set(name, { secret: name, state: 'rotated', detail: '' });
  await secrets.write(name, secret, content);
  const report = { secret: name, state: step.kind === 'make' ? 'made' : 'rotated' } as const;
  const settled = signsNext(id, nowMs + SETTLED_MS);
  switch (step.kind) {
    case 'make':
      return [{ ...report, detail: `key ${id} signs` }];
    case 'promote':
      return [{ ...report, detail: `key ${id} signs now, key ${signing} is still accepted` }];
    case 'note-next':
      return [{ ...report, detail: `key ${id} waits to sign`, due: settled }];
    case 'add-next': {
      const forgotten = step.forget === undefined ? '' : `, key ${step.forget} is forgotten`;
      return [
        { ...report, detail: `key ${id} is accepted from now on, key ${signing} signs${forgotten}`, due: settled },
      ];
    }
  }
}
