import { z } from 'zod';

/**
 * Keys of the original system's `criu` section that this agent does not need: it decides these things itself, from what it
 * sees. They are accepted so that an existing configuration goes on working; a value that asks for something else than what
 * happens is answered with a warning, or refused where following it would do harm. docs/configuration.md has the same table.
 */
interface OriginalKey {
  /** The values that say what the agent does anyway. */
  readonly same: readonly unknown[];
  readonly otherwise: 'warn' | 'refuse';
  readonly why: string;
}

export const ORIGINAL_KEYS: Readonly<Record<string, OriginalKey>> = {
  workDir: { same: [], otherwise: 'warn', why: 'the work directory is a private tmpfs below paths.runDir' },
  shellJob: {
    same: [true],
    otherwise: 'warn',
    why: 'sessions that begin outside the container are always allowed for',
  },
  tcpClose: {
    same: [false],
    otherwise: 'warn',
    why: 'connections that leave the pod come back closed, those inside it stay',
  },
  tcpEstablished: { same: [true], otherwise: 'warn', why: 'connections inside the pod are always kept' },
  fileLocks: { same: [true], otherwise: 'warn', why: 'file locks are always kept' },
  orphanPtsMaster: { same: [true, false], otherwise: 'warn', why: 'a terminal is taken from the placeholder' },
  extUnixSk: {
    same: [false],
    otherwise: 'warn',
    why: 'a unix socket connected to outside the container is refused, since its peer would be gone',
  },
  linkRemap: { same: [true], otherwise: 'warn', why: 'always on' },
  extMasters: {
    same: [true, false],
    otherwise: 'warn',
    why: 'mounts come from the placeholder, never from the artifact',
  },
  manageCgroupsMode: {
    same: ['ignore', 'soft', ''],
    otherwise: 'warn',
    why: "the restored tree joins the placeholder's cgroups; cgroups are never restored from an artifact",
  },
  imageIoMode: { same: ['', 'writeback', 'direct'], otherwise: 'warn', why: 'large memory does not go through CRIU' },
  rstSibling: {
    same: [true, false],
    otherwise: 'warn',
    why: "the restored process is the child of the placeholder's PID 1",
  },
  mntnsCompatMode: {
    same: [false],
    otherwise: 'refuse',
    why: 'the mount tree is cloned; the compatibility mode cannot work on it',
  },
  evasiveDevices: { same: [true, false], otherwise: 'warn', why: "devices are the placeholder's own" },
  forceIrmap: { same: [true], otherwise: 'warn', why: 'always on: inotify on overlayfs needs it' },
  autoDedup: {
    same: [false],
    otherwise: 'refuse',
    why: 'it punches holes into the artifact while it is read, and an artifact is restored many times',
  },
  lazyPages: { same: [false], otherwise: 'refuse', why: 'a workload would die with the daemon that serves its pages' },
  libDir: { same: [''], otherwise: 'refuse', why: 'CRIU plugins run as root and conflict with the CUDA steps' },
  allowUprobes: { same: [true, false], otherwise: 'warn', why: 'not used' },
  skipInFlight: { same: [true], otherwise: 'warn', why: 'connections that are just being opened are always skipped' },
};

const anyScalar = z.union([z.boolean(), z.string(), z.number()]);

function schemaOf(key: string, row: OriginalKey) {
  if (row.otherwise === 'warn') return anyScalar.optional();
  return anyScalar
    .refine(
      (value) => row.same.includes(value),
      `is refused: ${row.why}. Set ${JSON.stringify(row.same[0])} or remove ${key}`,
    )
    .optional();
}

/** Schema entries for the keys above, to be spread into the `criu` section. */
export const originalKeys = Object.fromEntries(
  Object.entries(ORIGINAL_KEYS).map(([key, row]) => [key, schemaOf(key, row)] as const),
);

/** One sentence for each accepted key whose value asks for something that does not happen. */
export function originalKeyWarnings(
  criu: Readonly<Record<string, unknown>>,
  nsRestorePath: string | undefined,
): string[] {
  const warnings = Object.entries(ORIGINAL_KEYS)
    .filter(([key, row]) => criu[key] !== undefined && !row.same.includes(criu[key]))
    .map(([key, row]) => `criu.${key}: ${JSON.stringify(criu[key])} has no effect: ${row.why}`);
  if (Number(criu['logLevel']) > 2)
    warnings.push('criu.logLevel: more than 2 is taken as 2: CRIU could fill a disk when an image is damaged');
  if (nsRestorePath !== undefined)
    warnings.push('restore.nsRestorePath has no effect: nothing is injected into the placeholder');
  return warnings;
}
