import type { Due } from './record-key-plan.ts';
import { isoTime } from './secret.ts';

/** What became of a Secret. Never any part of a private key. */
export interface SecretReport {
  readonly secret: string;
  /** `rotated`: something in it changed that was there before, or is about to. */
  readonly state: 'made' | 'unchanged' | 'rotated';
  /** What is in force, or what changed, in one sentence. */
  readonly detail: string;
  /** What comes next, at a run after that time. */
  readonly due?: Due | undefined;
}

/** One line for people. */
export function reportLine({ secret, state, detail, due }: SecretReport): string {
  const next = due === undefined ? '' : `; next: ${due.step}, from ${isoTime(due.atMs)} on`;
  return `${secret}: ${state}, ${detail}${next}\n`;
}

/** All of them for programs. */
export function reportJson(reports: readonly SecretReport[]): string {
  const secrets = reports.map(({ secret, state, detail, due }) => ({
    ...{ secret, state, detail },
    next: due === undefined ? null : { step: due.step, at: isoTime(due.atMs) },
  }));
  return `${JSON.stringify({ secrets }, null, 2)}\n`;
}
