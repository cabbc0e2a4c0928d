import { type Config, parseConfig } from './config.ts';
import { ORIGINAL_KEYS } from './config-original.ts';

/**
 * What may change while the agent runs, and why that is safe. A prefix stands for all keys below it. Every other key waits for a
 * restart: what it says was used to open, mount or measure something at the start. An operation keeps what it began with, because
 * it works with a copy of the configuration. docs/configuration.md says the same for each key.
 */
export const LIVE_KEYS: Readonly<Record<string, string>> = {
  logLevel: 'asked for at every line',
  'checkpoint.quiesceDelaySeconds': 'asked for at each look at a source',
  'checkpoint.timeoutSeconds': 'read when an operation begins',
  'checkpoint.frozenTimeoutSeconds': 'read when an operation begins',
  'restore.restoreTimeoutSeconds': 'read when an operation begins',
  'restore.standbySeconds': 'asked for at each look at a placeholder',
  'restore.allowPtraceCapability': 'read when a restore is checked',
  'restore.allowOlderKernel': 'read when a restore is checked',
  'restore.allowImageMismatch': 'read when a restore is checked',
  'restore.nsRestorePath': 'without effect',
  'memory.bulkMinimumBytes': 'read when an operation begins; an artifact says itself how it is laid out',
  'overlay.exclusions': 'read when an operation begins',
  'criu.ghostLimit': 'read when an operation begins',
  'criu.logLevel': 'read when an operation begins',
  'criu.leaveRunning': 'read when an operation begins, and kept with what is left to be finished',
  'criu.irmapScanPaths': 'read when an operation begins',
  ...Object.fromEntries(Object.keys(ORIGINAL_KEYS).map((key) => [`criu.${key}`, 'without effect'])),
  'cuda.lockTimeoutSeconds': 'read when an operation begins',
  'cuda.callSeconds': 'read when an operation begins',
  'cuda.minimumBytesPerSecond': 'read when an operation begins',
  'cuda.proveRestore': 'read when an operation begins',
  'cuda.multiGpuBelowDriver590': 'read when the GPUs of an operation are checked',
  'api.clients': 'asked for at every call',
  retention: 'the rules are asked for at every round; all of them change together',
  'limits.drainSeconds': 'read when the agent is asked to stop',
};

/** Keys whose values are never shown: an environment may hold a password. */
const HIDDEN = ['criu.environment', 'cuda.environment'];

export function isLive(key: string, live: Readonly<Record<string, string>> = LIVE_KEYS): boolean {
  return Object.keys(live).some((prefix) => isAtOrBelow(key, prefix));
}

function isAtOrBelow(key: string, prefix: string): boolean {
  return key === prefix || key.startsWith(`${prefix}.`);
}

/** One key that differs between two configurations. */
interface Change {
  readonly key: string;
  /** For people, without secrets: `old -> new`, or what a list gained and lost. */
  readonly text: string;
  /** The new value, to be compared only. */
  readonly wanted: string;
}

export interface Merged {
  /** The configuration to go on with. */
  readonly config: Config;
  /** What counts from now on. */
  readonly changed: readonly Change[];
  /** What is wanted and waits for a restart. */
  readonly waiting: readonly Change[];
}

/**
 * The running configuration with the live keys of another one. It is checked as a whole, as if it had been read from a file: what
 * two keys must agree on may be torn apart where one is live and the other is not. Throws CONFIG_INVALID.
 */
export function mergeLive(running: Config, wanted: Config, live: Readonly<Record<string, string>> = LIVE_KEYS): Merged {
  const merged: Tree = structuredClone(running);
  for (const prefix of Object.keys(live)) copyBranch(merged, wanted, prefix.split('.'));
  const config = parseConfig(JSON.stringify(merged));
  const changes = changesBetween(running, wanted);
  return {
    config,
    changed: changes.filter(({ key }) => isLive(key, live)),
    waiting: changes.filter(({ key }) => !isLive(key, live)),
  };
}

type Tree = { [key: string]: unknown };

function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Gives `to` what `from` has at the path. Sections always exist: the schema makes them. */
function copyBranch(to: Tree, from: Tree, [first = '', ...rest]: readonly string[]): void {
  const [target, source] = [to[first], from[first]];
  if (rest.length > 0 && isTree(target) && isTree(source)) copyBranch(target, source, rest);
  else if (source === undefined) delete to[first];
  else to[first] = structuredClone(source);
}

/** Every key with its value; a list is one value. */
export function leavesOf(value: unknown, path: readonly string[] = []): Map<string, unknown> {
  if (!isTree(value)) return new Map(value === undefined ? [] : [[path.join('.'), value]]);
  return new Map(Object.entries(value).flatMap(([key, below]) => [...leavesOf(below, [...path, key])]));
}

function changesBetween(from: Config, to: Config): Change[] {
  const [before, after] = [leavesOf(from), leavesOf(to)];
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((key) => {
    const [old, wanted] = [before.get(key), after.get(key)];
    if (shown(old) === shown(wanted)) return [];
    return [{ key, text: `${key}: ${difference(key, old, wanted)}`, wanted: shown(wanted) }];
  });
}

function difference(key: string, old: unknown, wanted: unknown): string {
  if (HIDDEN.some((hidden) => isAtOrBelow(key, hidden))) return 'changed (its values are not shown)';
  if (!Array.isArray(old) || !Array.isArray(wanted))
    return `${withoutSecret(shown(old))} -> ${withoutSecret(shown(wanted))}`;
  const [before, after] = [old.map(shown), wanted.map(shown)];
  const [lost, gained] = [before.filter((one) => !after.includes(one)), after.filter((one) => !before.includes(one))];
  const parts = [lost.length > 0 && `without ${lost.join(', ')}`, gained.length > 0 && `with ${gained.join(', ')}`];
  return parts.filter((part) => part !== false).join('; ') || `${shown(old)} -> ${shown(wanted)}`;
}

function shown(value: unknown): string {
  return value === undefined ? 'none' : JSON.stringify(value);
}

/** URLs may hold a password, or a token as their query. */
function withoutSecret(text: string): string {
  return text.replace(/:\/\/[^/"]*@/g, '://…@').replace(/\?[^"]*/g, '?…');
}
