import path from 'node:path';
import { SnapshotError } from '../../errors.ts';
import { bytesField, numberField, replaceFields, sameOutside } from './edit.ts';
import { readImage, replaceEntries } from './file.ts';
import { big, bytesOf, type Message, parseMessage } from './wire.ts';

/** Field of a file entry that holds a timerfd, and fields of the timerfd. */
const TIMERFD_ENTRY = 12;
const FIELD = { valueSeconds: 7, valueNanoseconds: 8, intervalSeconds: 9, intervalNanoseconds: 10 };

/**
 * A periodic timerfd that expired while its process was frozen says "0 left" in the images, and a timer set to 0 is a timer switched
 * off: restored as it stands it would never fire again. It gets one nanosecond instead, so that it fires at once and goes on
 * with its period, as the kernel's own would. Returns how many were mended.
 */
export async function rearmTimers(dir: string): Promise<number> {
  const file = path.join(dir, 'files.img');
  const image = await readImage(file, 'files');
  const edits = new Map(
    image.entries.flatMap((entry, index) => {
      const edited = rearmed(parseMessage(entry, `files.img entry ${index}`));
      return edited === undefined ? [] : [[index, edited] as const];
    }),
  );
  if (edits.size > 0) await replaceEntries(file, image, edits);
  return edits.size;
}

function rearmed(entry: Message): Uint8Array | undefined {
  const before = bytesOf(entry, TIMERFD_ENTRY);
  if (before === undefined) return undefined;
  const timer = parseMessage(before, `${entry.name} timerfd`);
  const value = (number: number) => big(timer, number) ?? 0n;
  const isExpired = value(FIELD.valueSeconds) === 0n && value(FIELD.valueNanoseconds) === 0n;
  const isPeriodic = value(FIELD.intervalSeconds) !== 0n || value(FIELD.intervalNanoseconds) !== 0n;
  if (!isExpired || !isPeriodic) return undefined;
  const number = FIELD.valueNanoseconds;
  const after = replaceFields(timer, new Map([[number, [numberField(number, 1)]]]));
  if (!sameOutside(before, after, new Set([number])))
    throw new SnapshotError('INTERNAL', `${timer.name}: the edit changed other fields`);
  return replaceFields(entry, new Map([[TIMERFD_ENTRY, [bytesField(TIMERFD_ENTRY, after)]]]));
}
