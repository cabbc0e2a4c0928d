import type { Logger } from 'pino';
import { KUBELET_LABELS } from '../../contract/keys.ts';
import { newBell, pause } from './bell.ts';
import type { Runtime } from './runtime.ts';
import { NOT_THERE, type RuntimeView, viewsOf } from './runtime-view.ts';

export interface LooksOptions {
  readonly runtime: Runtime;
  /** How often pods are looked at that something is still to come up of, events or not. */
  readonly pollMs: number;
  /** How often all pods are looked at in any case. */
  readonly resyncMs: number;
  readonly log: Logger;
  readonly pods: FollowedPods;
  /** Called after a look, where it was wanted, found something new, or is the one of a resync. */
  readonly seen: (uid: string, toldAtMs?: number) => void;
}

/** The pods that the looks are about, as they are at the time. */
interface FollowedPods {
  uids(): Iterable<string>;
  has(uid: string): boolean;
  /** Those of which something is still to come up. */
  awaited(): readonly string[];
}

/** What the runtime is asked about at once. */
interface Look {
  /** Pods that a look was wanted at, and when the API told of them. */
  readonly wanted: ReadonlyMap<string, number | undefined>;
  /** All that are looked at; undefined: every pod. */
  readonly uids: readonly string[] | undefined;
  readonly isResync: boolean;
}

/** From this many pods on, the runtime is asked once for all instead of for each. */
const ASK_FOR_ALL = 8;
/** What is wanted within this time of a look is looked at together: events and updates come in bursts. */
const SETTLE_MS = 20;
const MAX_BACKOFF_MS = 10_000;

/** What the runtime has of pods that somebody else follows. It is asked only where there may be news; one look at a time. */
export class RuntimeLooks {
  readonly #options: LooksOptions;
  readonly #views = new Map<string, RuntimeView>();
  readonly #bell = newBell();
  #wanted = new Map<string, number | undefined>();
  #isAllWanted = false;
  #problem: string | undefined = 'the runtime was not asked yet';
  /** In a row. */
  #failures = 0;
  #resyncAtMs = 0;
  #pollAtMs = 0;

  constructor(options: LooksOptions) {
    this.#options = options;
  }

  view(uid: string): RuntimeView {
    return this.#views.get(uid) ?? NOT_THERE;
  }

  /** Why the views may be out of date; undefined where they are fresh. */
  problem(): string | undefined {
    return this.#problem;
  }

  /** A look at this pod is due, however often it is asked for. */
  want(uid: string, toldAtMs?: number): void {
    this.#wanted.set(uid, this.#wanted.get(uid) ?? toldAtMs);
    this.#bell.ring();
  }

  forget(uid: string): void {
    this.#views.delete(uid);
    this.#wanted.delete(uid);
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#followEvents(signal), this.#lookAround(signal)]);
  }

  async #followEvents(signal: AbortSignal): Promise<void> {
    const { runtime, pollMs, pods, log } = this.#options;
    let breaks = 0;
    while (!signal.aborted) {
      // What happens before the runtime has taken the subscription is not told: one look when it must have.
      const afterwards = setTimeout(() => {
        breaks = 0;
        this.#wantAll();
      }, pollMs);
      const why = await runtime.events((uid) => {
        // A runtime that does not say which pod means any of them.
        if (uid === '') this.#wantAll();
        else if (pods.has(uid)) this.want(uid);
      }, signal);
      clearTimeout(afterwards);
      if (why === 'unsupported') {
        log.info({ pollMs }, 'the runtime has no events: pods are looked at as they come up, and as the API tells');
        return;
      }
      if (why === 'broken') this.#wantAll();
      breaks += 1;
      await pause(Math.min(MAX_BACKOFF_MS, pollMs * 2 ** (breaks - 1)), signal);
    }
  }

  async #lookAround(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(await this.#look(), signal);
      if (this.#failures === 0) await this.#bell.wait(this.#restMs(), signal);
    }
  }

  /** Looks at what is due. Returns how long to leave the runtime alone afterwards, in milliseconds. */
  async #look(): Promise<number> {
    const startedAtMs = performance.now();
    const look = this.#take();
    if (look.uids?.length === 0) return 0;
    const viewOf = await this.#ask(look).catch((err: unknown) => {
      this.#failures += 1;
      this.#problem = 'the runtime does not answer';
      this.#options.log.warn({ err, failures: this.#failures }, this.#problem);
      return undefined;
    });
    if (viewOf === undefined) {
      this.#putBack(look);
      return Math.min(MAX_BACKOFF_MS, this.#options.pollMs * 2 ** this.#failures);
    }
    this.#failures = 0;
    this.#problem = undefined;
    this.#tell(look, viewOf);
    return Math.max(SETTLE_MS, performance.now() - startedAtMs);
  }

  /** What is due now. What is wanted from here on waits for the next look: this one may not see it any more. */
  #take(): Look {
    const { pods, pollMs, resyncMs } = this.#options;
    const nowMs = performance.now();
    const isResync = nowMs >= this.#resyncAtMs;
    const isPoll = nowMs >= this.#pollAtMs;
    const wanted = this.#wanted;
    const uids = [...new Set([...wanted.keys(), ...(isPoll ? pods.awaited() : [])])];
    const isAll = isResync || this.#isAllWanted || uids.length >= ASK_FOR_ALL;
    if (isResync) this.#resyncAtMs = nowMs + resyncMs;
    if (isPoll) this.#pollAtMs = nowMs + pollMs;
    this.#wanted = new Map();
    this.#isAllWanted = false;
    return { wanted, uids: isAll ? undefined : uids, isResync };
  }

  /** A look that failed is still due, and one at all pods with it: the runtime may have been started again. */
  #putBack({ wanted, isResync }: Look): void {
    for (const [uid, toldAtMs] of wanted) {
      if (this.#options.pods.has(uid)) this.#wanted.set(uid, toldAtMs ?? this.#wanted.get(uid));
    }
    this.#isAllWanted = true;
    if (isResync) this.#resyncAtMs = 0;
  }

  async #ask({ uids }: Look): Promise<(uid: string) => RuntimeView> {
    if (uids === undefined) return await this.#list();
    const views = await Promise.all(
      uids.map(async (uid) => [uid, (await this.#list({ [KUBELET_LABELS.podUid]: uid }))(uid)] as const),
    );
    const byUid = new Map(views);
    return (uid) => byUid.get(uid) ?? NOT_THERE;
  }

  async #list(labels?: Readonly<Record<string, string>>): Promise<(uid: string) => RuntimeView> {
    const { runtime } = this.#options;
    return viewsOf(...(await Promise.all([runtime.sandboxes(labels), runtime.containers(labels)])));
  }

  #tell({ wanted, uids, isResync }: Look, viewOf: (uid: string) => RuntimeView): void {
    const { pods, seen } = this.#options;
    for (const uid of uids ?? [...pods.uids()]) {
      // Gone while the runtime was asked.
      if (!pods.has(uid)) continue;
      const view = viewOf(uid);
      const isNews = JSON.stringify(view) !== JSON.stringify(this.view(uid));
      this.#views.set(uid, view);
      if (isNews || isResync || wanted.has(uid)) seen(uid, wanted.get(uid));
    }
  }

  #wantAll(): void {
    this.#isAllWanted = true;
    this.#bell.ring();
  }

  #restMs(): number {
    const isAnyAwaited = this.#options.pods.awaited().length > 0;
    const dueAtMs = isAnyAwaited ? Math.min(this.#resyncAtMs, this.#pollAtMs) : this.#resyncAtMs;
    return Math.max(0, dueAtMs - performance.now());
  }
}
