import type { Reason } from '../../errors.ts';
import { type AdmissionTarget, type Images, list, SAME_POD } from './admission-subject.ts';
import { capabilityNames } from './capabilities.ts';
import type { Credentials } from './credentials.ts';
import type { Process, SeccompFilter } from './processes.ts';
import { filterForm } from './seccomp-form.ts';

const SETS = ['inheritable', 'permitted', 'effective', 'bounding', 'ambient'] as const;

interface Thread {
  readonly process: Process;
  readonly thread: Credentials;
}

const threadsOf = ({ processes }: Images): Thread[] =>
  processes.flatMap((process) => process.credentials.map((thread) => ({ process, thread })));

const named = (threads: readonly Thread[]) =>
  list(threads.map(({ process, thread }) => `${process.comm}[${thread.tid}]`));

/** What a thread has beyond the target: of any set beyond its bounding set; of those in force, under no_new_privs, beyond what it holds. */
function excess({ capabilities }: Credentials, target: AdmissionTarget): bigint {
  const all = SETS.reduce((mask, set) => mask | capabilities[set], 0n);
  const inForce = capabilities.permitted | capabilities.effective | capabilities.ambient;
  return (all & ~target.boundingCaps) | (target.noNewPrivs ? inForce & ~target.permittedCaps : 0n);
}

/** Capabilities, no_new_privs and descriptors that need privileges. */
export function privilegeReasons(images: Images, target: AdmissionTarget): Reason[] {
  const threads = threadsOf(images);
  const reasons: Reason[] = [];
  const extra = threads.reduce((mask, { thread }) => mask | excess(thread, target), 0n);
  if (extra !== 0n)
    reasons.push({
      code: 'CAPABILITY_EXCEEDED',
      message: `${named(threads.filter(({ thread }) => excess(thread, target) !== 0n))}: capabilities that the target container may not have`,
      found: capabilityNames(extra),
      wanted: `within ${capabilityNames(target.noNewPrivs ? target.permittedCaps : target.boundingCaps)}`,
      advice: SAME_POD,
    });
  const gaining = target.noNewPrivs ? threads.filter(({ thread }) => !thread.noNewPrivs) : [];
  if (gaining.length > 0) {
    const message = `${named(gaining)}: no_new_privs is not set, and the target container has it`;
    reasons.push({ code: 'NO_NEW_PRIVS_WEAKER', message, found: 'not set', wanted: 'set', advice: SAME_POD });
  }
  for (const { what, capability } of images.resources.privileged) {
    if ((target.boundingCaps >> BigInt(capability)) & 1n) continue;
    const wanted = capabilityNames(1n << BigInt(capability));
    reasons.push({
      code: 'PRIVILEGED_DESCRIPTOR',
      message: `a process holds ${what}`,
      found: what,
      wanted,
      advice: SAME_POD,
    });
  }
  return reasons;
}

/** AppArmor's label without its mode, as CRIU writes it, which also leaves out `unconfined`. */
const plainLabel = (label: string | undefined) =>
  label?.replace(/ \((enforce|complain|kill|mixed|prompt|unconfined)\)$/, '');

/**
 * The threads with the seccomp filters that they will have. Filters that all threads of a process have are written once, with the main
 * thread, which installs them in all others. That works only where no other thread has filters of its own; where the images
 * say otherwise, no CRIU wrote them, and installing may fail in silence: then no thread counts as filtered.
 */
function filteredThreads(images: Images): (Thread & { mode: number; chain: readonly SeccompFilter[] })[] {
  const chainOf = ({ seccompFilter }: Credentials) =>
    seccompFilter === undefined ? [] : images.seccompChain(seccompFilter);
  return images.processes.flatMap((process) => {
    const threads = process.credentials.map((thread) => ({
      process,
      thread,
      mode: thread.seccompMode,
      chain: chainOf(thread),
    }));
    const [main, ...others] = threads;
    if (main === undefined || !threads.some(({ chain }) => chain.some(({ ofAllThreads }) => ofAllThreads)))
      return threads;
    const isShared = main.chain.every(({ ofAllThreads }) => ofAllThreads) && others.every(({ mode }) => mode === 0);
    const { mode, chain } = isShared ? main : { mode: 0, chain: [] };
    return threads.map((one) => ({ ...one, mode, chain }));
  });
}

/** Seccomp filters and the label of the security module. */
export function confinementReasons(images: Images, target: AdmissionTarget): Reason[] {
  const threads = threadsOf(images);
  const reasons: Reason[] = [];
  const wanted = target.seccompFilters.map(filterForm);
  const prefixed = (chain: readonly SeccompFilter[]) =>
    wanted.every((form, index) => {
      const filter = chain[index];
      return filter !== undefined && (filter.code === target.seccompFilters[index] || filterForm(filter.code) === form);
    });
  const weaker = filteredThreads(images).filter(({ mode, chain }) => {
    if (target.seccompMode === 1) return mode !== 1;
    return target.seccompMode === 2 && !(mode === 2 && prefixed(chain));
  });
  if (weaker.length > 0) {
    reasons.push({
      code: 'SECCOMP_WEAKER',
      message: `${named(weaker)}: the seccomp filters do not begin with those of the target container`,
      found: list(weaker.map(({ mode, chain }) => `mode ${mode} with ${chain.length} filters`)),
      wanted: `mode ${target.seccompMode} with the ${target.seccompFilters.length} filters of the target first`,
      advice: 'Give the target pod the seccomp profile of the source.',
    });
  }
  const label = plainLabel(target.lsmLabel);
  const other =
    label === undefined
      ? []
      : threads.filter(({ thread }) => (plainLabel(thread.lsmProfile) ?? 'unconfined') !== label);
  if (other.length > 0) {
    reasons.push({
      code: 'LSM_LABEL_DIFFERS',
      message: `${named(other)}: another security label than the target container`,
      found: list(other.map(({ thread }) => thread.lsmProfile ?? 'none')),
      wanted: label ?? '',
      advice: 'Give the target pod the AppArmor profile or SELinux label of the source.',
    });
  }
  return reasons;
}
