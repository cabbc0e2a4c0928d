import type { Config } from '../config.ts';
import type { Placeholder } from '../container/placeholder.ts';
import type { Reason } from '../errors.ts';
import type { ArtifactRecord } from '../store/record.ts';
import type { RunningContainer } from '../watch/runtime.ts';
import type { NodeFacts } from './node.ts';

/** The two sides of a comparison. */
export interface Comparison {
  readonly record: ArtifactRecord;
  readonly node: NodeFacts;
  readonly running: RunningContainer;
  readonly placeholder: Placeholder;
  readonly podIps: readonly string[];
  readonly rules: Config['restore'];
}

/** Every reason why this artifact cannot be restored into this container on this node: all at once, with both values. */
export function mismatches(comparison: Comparison): Reason[] {
  return [...platformMismatches(comparison), ...containerMismatches(comparison)];
}

/**
 * What `mismatches` compares beyond these, in words: it needs a container. What the images ask for is compared with one too (see
 * `requireHarmless`).
 */
export const NEEDS_CONTAINER = [
  'image',
  'mounts',
  'memory limit',
  'terminal',
  'network',
  'capabilities',
  'seccomp and security label',
] as const;

/** What the node alone has against it. */
export function platformMismatches({ record, node, rules }: Pick<Comparison, 'record' | 'node' | 'rules'>): Reason[] {
  const { platform } = record;
  const reasons: Reason[] = [];
  if (platform.arch !== node.arch)
    reasons.push({
      code: 'ARCHITECTURE',
      message: 'the artifact was captured on another architecture',
      found: node.arch,
      wanted: platform.arch,
      advice: 'Schedule the pod on a node of that architecture.',
    });
  const missing = platform.cpu.features.filter((feature) => !node.cpu.features.includes(feature));
  if (missing.length > 0 && platform.arch === node.arch)
    reasons.push({
      code: 'CPU_FEATURES',
      message: `this CPU lacks ${missing.join(', ')}, which the workload may have detected and go on using`,
      found: `${node.cpu.vendor} ${node.cpu.family}/${node.cpu.model} without ${missing.join(', ')}`,
      wanted: `${platform.cpu.vendor} ${platform.cpu.family}/${platform.cpu.model} with ${missing.join(', ')}`,
      advice: 'Schedule the pod on a node with the same CPU generation, or a later one of the same vendor.',
    });
  if (isOlder(node.kernel, platform.kernel) && !rules.allowOlderKernel)
    reasons.push({
      code: 'KERNEL_OLDER',
      message: 'this kernel is older than the one the artifact was captured on',
      found: node.kernel,
      wanted: `${platform.kernel} or newer`,
      advice: 'Upgrade the node, or set restore.allowOlderKernel.',
    });
  if (isOlder(node.criu, platform.criu))
    reasons.push({
      code: 'CRIU_OLDER',
      message: 'CRIU of this agent is older than the one that wrote the images',
      found: node.criu,
      wanted: `${platform.criu} or newer`,
      advice: 'Upgrade the agent on this node.',
    });
  return reasons;
}

function containerMismatches({ record, running, placeholder, podIps, rules }: Comparison): Reason[] {
  const reasons: Reason[] = [];
  if (record.source.imageId !== running.imageId && !rules.allowImageMismatch)
    reasons.push({
      code: 'IMAGE',
      message: 'the container has another image than the one the artifact was captured from',
      found: `${running.image} (${running.imageId})`,
      wanted: `${record.source.image} (${record.source.imageId})`,
      advice: 'Use the same image, by digest; or set restore.allowImageMismatch, knowing that files may differ.',
    });
  const missing = record.mounts
    .map(({ mountPoint }) => mountPoint)
    .filter((point) => !placeholder.mountPoints.includes(point));
  if (missing.length > 0)
    reasons.push({
      code: 'MOUNTS_MISSING',
      message: 'the container lacks mounts that the workload had',
      found: placeholder.mountPoints.join(' '),
      wanted: missing.join(' '),
      advice: 'Mount the same volumes at the same places as in the source pod.',
    });
  const needed = record.sizes.bulkBytes + record.sizes.criuBytes;
  if (running.memoryLimitBytes !== undefined && running.memoryLimitBytes < needed)
    reasons.push({
      code: 'MEMORY_LIMIT',
      message: 'the memory limit of the container is smaller than the memory that is restored',
      found: `${running.memoryLimitBytes} bytes`,
      wanted: `${needed} bytes or more`,
      advice: "Give the container at least the source's memory limit.",
    });
  if ((record.process.tty !== undefined) !== running.tty)
    reasons.push({
      code: 'TERMINAL',
      message: 'one of the containers has a terminal, the other has not',
      found: running.tty ? 'a terminal' : 'none',
      wanted: record.process.tty === undefined ? 'none' : 'a terminal',
      advice: 'Set tty of the container as in the source pod.',
    });
  if (placeholder.canTrace && !rules.allowPtraceCapability)
    reasons.push({
      code: 'TARGET_CAN_TRACE',
      message: 'the container holds CAP_SYS_PTRACE and could interfere with CRIU while it works in its PID namespace',
      found: 'CAP_SYS_PTRACE',
      wanted: 'no CAP_SYS_PTRACE',
      advice: 'Drop SYS_PTRACE from the container, or set restore.allowPtraceCapability.',
    });
  if (record.source.podIps.length > 0 !== podIps.length > 0)
    reasons.push({
      code: 'NETWORK',
      message: "one of the pods is on the host's network, the other has an address of its own",
      found: podIps.join(', ') || 'host network',
      wanted: record.source.podIps.join(', ') || 'host network',
      advice: 'Set hostNetwork as in the source pod.',
    });
  return reasons;
}

/** Compares the leading numbers of versions: `6.18.44-fc` is not older than `6.18`. */
export function isOlder(version: string, than: string): boolean {
  const numbers = (text: string) => (/^\d+(\.\d+)*/.exec(text)?.[0] ?? '0').split('.').slice(0, 2).map(Number);
  const [major = 0, minor = 0] = numbers(version);
  const [thanMajor = 0, thanMinor = 0] = numbers(than);
  return major < thanMajor || (major === thanMajor && minor < thanMinor);
}
