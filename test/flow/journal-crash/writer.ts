/** Writes operations into a journal that is compacted again and again, says which are promised, and dies before the n-th call. */
import { writeSync } from 'node:fs';
import { openJournal } from '../../../agent/operations/journal.ts';
import { dieWithin } from '../store-crash/dying.ts';
import { transition } from './transition.ts';

const [path = '', dieAt = ''] = process.argv.slice(2);

const calls = await dieWithin(Number(dieAt), async () => {
  const journal = await openJournal({ path, bootId: 'boot', compactFrom: 2_000 });
  const append = async (id: string, state: 'started' | 'succeeded') => {
    await journal.append(transition(id, state));
    writeSync(1, `${id} ${state}\n`);
  };
  // Several at once: what comes during a compaction waits for it. Steps of what has ended are of no use: they only make the file grow.
  for (let n = 0; n < 4; n += 1) {
    const steps = Array.from({ length: 8 }, () => journal.append(transition('done-0', 'step')));
    await Promise.all([append(`open-${n}`, 'started'), append(`done-${n}`, 'succeeded'), ...steps]);
  }
  await journal.close();
});
writeSync(1, `calls ${calls}\n`);
