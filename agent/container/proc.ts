/** Parsers of procfs text: pure, and strict only where the agent depends on a field. Formats: proc(5). */

/** Fields of /proc/PID/stat. `comm` may hold anything, so the line is split after its last parenthesis. */
export interface ProcStat {
  readonly pid: number;
  readonly comm: string;
  /** R, S, D, T, t, Z, X … */
  readonly state: string;
  readonly ppid: number;
  /** The kernel's PF_ bits. */
  readonly flags: number;
  /** Clock ticks since boot: with the PID it names a process for as long as the machine is up. */
  readonly start: number;
  /** Raw wait status, once the process is a zombie and the reader may trace it; 0 otherwise. */
  readonly exitStatus: number;
}

export function parseStat(text: string): ProcStat {
  const open = text.indexOf('(');
  const close = text.lastIndexOf(')');
  const rest = text
    .slice(close + 2)
    .trim()
    .split(' ');
  return {
    pid: Number(text.slice(0, open)),
    comm: text.slice(open + 1, close),
    state: rest[0] ?? '',
    ppid: Number(rest[1]),
    flags: Number(rest[6]),
    start: Number(rest[19]),
    exitStatus: Number(rest[49] ?? 0),
  };
}

/** Fields of /proc/PID/status. Masks are 64-bit sets: bit N-1 is signal N, bit N capability N. */
export interface ProcStatus {
  readonly uid: number;
  readonly nspid: readonly number[];
  readonly tracerPid: number;
  readonly pendingSignals: bigint;
  readonly blockedSignals: bigint;
  readonly permittedCaps: bigint;
  readonly boundingCaps: bigint;
  readonly noNewPrivs: boolean;
  readonly seccompMode: number;
  readonly threads: number;
  /** Resident memory: anonymous, file-backed and shared, bytes. */
  readonly residentBytes: number;
  /** Of it, what only images can hold: anonymous and shared. */
  readonly ownBytes: number;
}

export function parseStatus(text: string): ProcStatus {
  const fields = new Map(
    text.split('\n').map((line) => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1).trim()] as const;
    }),
  );
  const mask = (name: string) => BigInt(`0x${fields.get(name) || '0'}`);
  const kilobytes = (name: string) => Number.parseInt(fields.get(name) ?? '0', 10) * 1024 || 0;
  return {
    uid: Number.parseInt(fields.get('Uid') ?? '0', 10),
    nspid: (fields.get('NSpid') ?? '').split(/\s+/).filter(Boolean).map(Number),
    tracerPid: Number(fields.get('TracerPid') ?? 0),
    pendingSignals: mask('SigPnd') | mask('ShdPnd'),
    blockedSignals: mask('SigBlk'),
    permittedCaps: mask('CapPrm'),
    boundingCaps: mask('CapBnd'),
    noNewPrivs: fields.get('NoNewPrivs') === '1',
    seccompMode: Number(fields.get('Seccomp') ?? 0),
    threads: Number(fields.get('Threads') ?? 0),
    residentBytes: kilobytes('VmRSS'),
    ownBytes: kilobytes('RssAnon') + kilobytes('RssShmem'),
  };
}

/** One line of /proc/PID/mountinfo. */
export interface Mount {
  readonly id: number;
  readonly device: string;
  /** Directory of the filesystem that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly fstype: string;
  readonly source: string;
  /** Options of the filesystem, such as an overlay's upperdir. */
  readonly superOptions: readonly string[];
}

export function parseMountinfo(text: string): Mount[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ');
      const fields = before.split(' ');
      const [fstype = '', source = '', superOptions = ''] = after.split(' ');
      return {
        id: Number(fields[0]),
        device: fields[2] ?? '',
        root: unescapePath(fields[3] ?? ''),
        mountPoint: unescapePath(fields[4] ?? ''),
        fstype,
        source: unescapePath(source),
        superOptions: superOptions.split(',').map(unescapePath),
      };
    });
}

/** mountinfo writes blanks, tabs, line feeds and backslashes as three octal digits; within options also commas. */
function unescapePath(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** One socket of /proc/PID/net/{tcp,tcp6,udp,udp6}. */
export interface NetSocket {
  readonly inode: number;
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  /** Kernel's TCP state: 1 established, 10 listening. */
  readonly state: number;
}

export function parseNetSockets(text: string): NetSocket[] {
  return text
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const fields = line.trim().split(/\s+/);
      const [localAddress = '', localPort = '0'] = (fields[1] ?? '').split(':');
      const [remoteAddress = '', remotePort = '0'] = (fields[2] ?? '').split(':');
      return {
        inode: Number(fields[9]),
        localAddress: addressFromHex(localAddress),
        localPort: Number.parseInt(localPort, 16),
        remoteAddress: addressFromHex(remoteAddress),
        remotePort: Number.parseInt(remotePort, 16),
        state: Number.parseInt(fields[3] ?? '0', 16),
      };
    });
}

/** procfs prints an address as 32-bit words in the byte order of the host (little-endian on the architectures we run on). */
function addressFromHex(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  for (let word = 0; word + 4 <= bytes.length; word += 4) bytes.subarray(word, word + 4).reverse();
  if (bytes.length === 4) return bytes.join('.');
  const mapped = bytes.length === 16 && bytes.subarray(0, 12).toString('hex') === '00000000000000000000ffff';
  if (mapped) return bytes.subarray(12).join('.');
  const words = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16));
  return shortenV6(words);
}

/** RFC 5952: the longest run of two or more zero words becomes `::`. */
function shortenV6(words: readonly string[]): string {
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (words[at + length] === '0') length++;
    if (length > best.length) best = { at, length };
  }
  if (best.at < 0) return words.join(':');
  return `${words.slice(0, best.at).join(':')}::${words.slice(best.at + best.length).join(':')}`;
}

/** The wait status as a shell would print it: the exit code, or 128 + the signal. */
export function exitCodeOf(waitStatus: number): number {
  const signal = waitStatus & 0x7f;
  return signal === 0 ? (waitStatus >> 8) & 0xff : 128 + signal;
}

/** The instruction-set extensions of /proc/cpuinfo's first processor that user code may have detected and gone on to use. */
export function parseCpu(text: string): { vendor: string; family: number; model: number; features: string[] } {
  const field = (name: string) => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(text)?.[1]?.trim() ?? '';
  const flags = field('flags').split(' ');
  return {
    vendor: field('vendor_id'),
    family: Number(field('cpu family')),
    model: Number(field('model')),
    features: flags.filter((flag) => USER_FEATURE.test(flag)).sort(),
  };
}

const USER_FEATURE =
  /^(sse|ssse|avx|amx|fma|bmi|xop|tbm|xsave|aes$|vaes$|sha_ni$|sha512$|sm3$|sm4$|pclmul|vpclmul|gfni$|popcnt$|abm$|movbe$|f16c$|rdrand$|rdseed$|adx$|fsgsbase$|pku$|clflushopt$|clwb$|cldemote$|rdpid$|movdir|serialize$|cx16$|erms$|fsrm$|rtm$|hle$)/;
