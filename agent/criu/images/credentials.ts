import { corrupt, inner, type Message, required, text, uint, uints } from './wire.ts';

/** What one thread of the images may do, as CRIU will set it. Capability sets are bit masks (bit n = capability number n). */
export interface Credentials {
  readonly tid: number;
  readonly uids: {
    readonly real: number;
    readonly effective: number;
    readonly saved: number;
    readonly filesystem: number;
  };
  readonly gids: {
    readonly real: number;
    readonly effective: number;
    readonly saved: number;
    readonly filesystem: number;
  };
  readonly groups: readonly number[];
  readonly capabilities: CapabilitySets;
  readonly noNewPrivs: boolean;
  /** 0 none, 1 strict, 2 filter. */
  readonly seccompMode: number;
  /** Index of the oldest filter in seccomp.img; undefined where the mode is not `filter`. */
  readonly seccompFilter: number | undefined;
  readonly lsmProfile: string | undefined;
}

interface CapabilitySets {
  readonly inheritable: bigint;
  readonly permitted: bigint;
  readonly effective: bigint;
  readonly bounding: bigint;
  readonly ambient: bigint;
}

function mask(creds: Message, number: number, optional = false): bigint {
  const words = uints(creds, number);
  if (words.length !== 2 && !(optional && words.length === 0)) {
    throw corrupt(`${creds.name}: a capability set has ${words.length} words instead of 2`);
  }
  return words.reduce((bits, word, index) => bits | (BigInt(word) << BigInt(32 * index)), 0n);
}

function ids(creds: Message, [real, effective, saved, filesystem]: [number, number, number, number]) {
  const id = (number: number) => required(uint(creds, number), creds, `id field ${number}`);
  return { real: id(real), effective: id(effective), saved: id(saved), filesystem: id(filesystem) };
}

/**
 * The credentials of a thread from its core message. Without a `thread_core` or its credentials (formats older than CRIU 2) CRIU would
 * take them from another file or leave its own, that is root's, so such images are refused.
 */
export function readCredentials(core: Message, tid: number): Credentials {
  const thread = required(inner(core, 5, `${core.name} thread`), core, 'the thread state');
  const creds = required(inner(thread, 10, `${core.name} credentials`), thread, 'the credentials');
  const seccompMode = uint(thread, 11) ?? 0;
  if (seccompMode > 2) throw corrupt(`${core.name}: seccomp mode ${seccompMode} is not known`);
  return {
    tid,
    uids: ids(creds, [1, 3, 5, 7]),
    gids: ids(creds, [2, 4, 6, 8]),
    groups: uints(creds, 14),
    capabilities: {
      inheritable: mask(creds, 9),
      permitted: mask(creds, 10),
      effective: mask(creds, 11),
      bounding: mask(creds, 12),
      ambient: mask(creds, 19, true),
    },
    noNewPrivs: (uint(creds, 18) ?? 0) !== 0,
    seccompMode,
    // CRIU reads an absent index as 0.
    seccompFilter: seccompMode === 2 ? (uint(thread, 12) ?? 0) : undefined,
    lsmProfile: text(creds, 15),
  };
}
