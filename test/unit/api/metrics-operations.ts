import { type Metrics, newMetrics } from '../../../agent/api/metrics.ts';
import { type NewOperation, newRegistry, type OperationHandle } from '../../../agent/operations/registry.ts';
import type { StepTiming } from '../../../agent/operations/steps.ts';

/** A request as the agent makes it, with what a test wants to be different. */
export function operation(changes: Partial<NewOperation> = {}): NewOperation {
  return {
    id: 'op-1',
    requestId: 'request-1',
    fingerprint: '',
    kind: 'checkpoint',
    origin: 'annotation',
    target: { namespace: 'team', pod: 'worker', podUid: 'uid-1', container: 'main', containerId: 'c1' },
    checkpointId: 'warm',
    version: '1',
    traceId: '0af7651916cd43dd8448eb211c80319c',
    ...changes,
  };
}

export interface Watched {
  readonly metrics: Metrics;
  open(changes?: Partial<NewOperation>): OperationHandle;
  pass(seconds: number): void;
  /** Samples as Prometheus sees them: `name{label="value"}` without the prefix, and the value. */
  samples(): Promise<ReadonlyMap<string, number>>;
}

/** Metrics that watch a real registry of operations, both with one clock that stands still until it is told to go on. */
export function watchedOperations(): Watched {
  let nowMs = Date.UTC(2026, 10, 23);
  let made = 0;
  const now = () => nowMs;
  const metrics = newMetrics({ version: '1.2.3', criu: '4.2', kernel: '6.12.0', runtime: 'containerd 2.1' }, now);
  const registry = newRegistry(now);
  registry.onChange((change) => metrics.operations.changed(change));
  return {
    metrics,
    open: (changes = {}) => {
      made += 1;
      return registry.open(operation({ id: `op-${made}`, ...changes }));
    },
    pass: (seconds) => {
      nowMs += seconds * 1000;
    },
    samples: async () => samplesOf(await metrics.registry.metrics()),
  };
}

/** Runs an operation through these steps. The clock is not touched: their durations are what they say. */
export function perform(handle: OperationHandle, timings: readonly StepTiming[]): void {
  handle.started();
  for (const timing of timings) {
    if (timing.step !== 'unaccounted') handle.step(timing.step, 'undone');
    handle.stepEnded(timing);
  }
}

function samplesOf(text: string): Map<string, number> {
  const lines = text.matchAll(/^snapshot_agent_(\S+?(?:\{.*\})?) (\S+)$/gm);
  return new Map([...lines].map(([, name = '', value]) => [name, Number(value)]));
}
