import type { PodView } from '../../contract/pods.ts';
import { type PinnedProcess, pinProcess } from '../container/pinned.ts';
import type { PodPlace } from '../cuda/dra.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import { type AttachedVolume, attachVolume } from '../store/attach.ts';
import type { RunningContainer } from '../watch/runtime.ts';
import type { AgentContext } from './context.ts';
import { makeWorkDir } from './node.ts';
import { type StepTiming, stopwatch } from './steps.ts';

const SIGKILL = 9;

/** A container within reach: its process pinned, its volume attached, a private directory to work in. */
export interface Target {
  readonly running: RunningContainer;
  /** As Kubernetes and kubelet know it. */
  readonly place: PodPlace;
  readonly podIps: readonly string[];
  /** The process that the runtime started: PID 1 of the container. */
  readonly main: PinnedProcess;
  readonly volume: AttachedVolume;
  readonly workDir: string;
  /** How long it took to reach it: the first steps of the operation. */
  readonly timings: readonly StepTiming[];
  /** Gives the pinned process away: `release` no longer lets go of it. */
  handOver(): PinnedProcess;
  /** Lets go of everything; the container and the volume stay as they are. */
  release(): Promise<void>;
}

/**
 * Finds the container's process, pins it, and asks the runtime again: only a process that is the container's before and after it
 * was pinned is acted on.
 */
async function pinContainer(
  { runtime, native }: Pick<AgentContext, 'runtime' | 'native'>,
  containerId: string,
  onResolved: () => void = () => undefined,
): Promise<{ readonly running: RunningContainer; readonly main: PinnedProcess }> {
  const running = await runtime.running(containerId);
  onResolved();
  const main = await pinProcess(native, running.hostPid);
  try {
    const again = await runtime.running(containerId);
    if (again.hostPid === running.hostPid) return { running, main };
    throw new SnapshotError(
      'CONTAINER_GONE',
      `container ${containerId} has host PID ${again.hostPid}, it was ${running.hostPid} a moment ago`,
    );
  } catch (error) {
    main.release();
    throw error;
  }
}

/** Pins the container's process and attaches the volume. */
export async function reachTarget(
  context: AgentContext,
  request: {
    readonly pod: Pick<PodView, 'sandboxId' | 'namespace' | 'name' | 'uid'>;
    readonly wanted: Pick<CheckpointWanted | RestoreWanted, 'container' | 'basePath'>;
  },
): Promise<Target> {
  const { runtime, native, config } = context;
  const { container, basePath } = request.wanted;
  const clock = stopwatch();
  const { running, main } = await pinContainer(context, container.id, () => clock.lap('resolve'));
  clock.lap('pin');
  let isOurs = true;
  const undo: (() => Promise<void> | void)[] = [() => (isOurs ? main.release() : undefined)];
  const release = async () => {
    for (const action of undo.splice(0).toReversed())
      await Promise.resolve(action()).catch((err: unknown) => context.log.warn({ err }, 'clean-up failed'));
  };
  try {
    const podIps = await runtime.podIps(request.pod.sandboxId);
    const work = await makeWorkDir(config);
    undo.push(work.remove);
    const volume = await attachVolume(native, {
      accessMode: config.storage.accessMode,
      configured: config.storage.basePath,
      asked: basePath,
      through: main.id,
      below: work.path,
    });
    undo.push(volume.detach);
    clock.lap('attach');
    const handOver = () => {
      isOurs = false;
      return main;
    };
    const { namespace, name: pod, uid } = request.pod;
    const place = { namespace, pod, uid, container: container.name, nodeName: config.nodeName };
    return { handOver, running, place, podIps, main, volume, workDir: work.path, timings: clock.laps, release };
  } catch (error) {
    await release();
    throw error;
  }
}

/** Kills the main process of a container, whichever it is now. One that is gone needs nothing. */
export async function killContainer(
  context: Pick<AgentContext, 'runtime' | 'native'>,
  containerId: string,
): Promise<void> {
  const { main } = await pinContainer(context, containerId);
  try {
    await main.signal(SIGKILL);
  } finally {
    main.release();
  }
}
