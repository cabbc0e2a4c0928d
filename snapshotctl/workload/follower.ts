import { pause } from '../../kube/backoff.ts';
import type { Pod } from '../../kube/objects.ts';
import { oneLine } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';
import { asCommandError, isPassing } from './asking.ts';
import { eventLine, type NewsPlace, notableEvents } from './pod-news.ts';
import { podSummary } from './pod-state.ts';

/** How often the cluster is asked. */
const POLL_MS = 1_000;
/** How long an Event that says why may come after what it explains. */
export const EXPLANATION_MS = 5_000;

/** Says on a terminal what is new, each line once. */
export class Progress {
  readonly #terminal: Terminal;
  readonly #said = new Set<string>();
  #lastPods = '';

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** Whether somebody looks on. */
  get isShown(): boolean {
    return this.#terminal.err.isTerminal;
  }

  say(line: string): void {
    if (this.isShown) this.#terminal.err.write(`${line}\n`);
  }

  /** What became of the pods since the last call. */
  async tell(place: NewsPlace, pods: readonly Pod[]): Promise<void> {
    if (!this.isShown) return;
    const now = pods.map((pod) => podSummary(pod)).join('\n');
    if (now !== '' && now !== this.#lastPods) this.say(now);
    this.#lastPods = now;
    for (const event of await notableEvents(place, pods)) {
      const { name } = event.metadata;
      if (this.#said.has(name)) continue;
      this.#said.add(name);
      this.say(`  ${eventLine(event)}`);
    }
  }
}

export interface Following {
  readonly terminal: Terminal;
  readonly timeoutMs: number;
}

/**
 * Asks again and again until there is an answer. An API server that is away is borne until the time is over; undefined is then the answer.
 * Throws CommandError for what asking again does not help, and the signal's reason.
 */
export async function askUntil<T extends object>(
  { terminal, timeoutMs }: Following,
  look: () => Promise<T | undefined>,
): Promise<T | undefined> {
  const deadlineMs = performance.now() + timeoutMs;
  let isAway = false;
  for (;;) {
    try {
      const found = await look();
      if (found !== undefined) return found;
      isAway = false;
    } catch (error) {
      terminal.signal.throwIfAborted();
      if (!isPassing(error)) throw asCommandError(error);
      if (!isAway)
        terminal.err.write(`the API server does not answer, asking on: ${oneLine((error as Error).message)}\n`);
      isAway = true;
    }
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) return undefined;
    await pause(Math.min(POLL_MS, leftMs), terminal.signal);
    terminal.signal.throwIfAborted();
  }
}
