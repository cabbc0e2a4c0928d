import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  exitCodeOf,
  parseCpu,
  parseMountinfo,
  parseNetSockets,
  parseStat,
  parseStatus,
} from '../../../agent/container/proc.ts';
import { statLine } from '../../fakes/procfs.ts';

describe('/proc/PID/stat', () => {
  const line =
    '4242 (python3) S 1 4242 4242 0 -1 4194560 2101 0 3 0 12 4 0 0 20 0 5 0 987654 1234567168 3456 18446744073709551615 1 1 0 0 0 0 0 16781312 17642 0 0 0 17 3 0 0 0 0 0 0 0 0 0 0 0 0 9\n';

  it('is read field by field', () => {
    expect(parseStat(line)).toEqual({
      pid: 4242,
      comm: 'python3',
      state: 'S',
      ppid: 1,
      flags: 0x400100,
      start: 987654,
      exitStatus: 9,
    });
  });

  it.each(['a b', '(sd-pam)', ') S 1 (', 'a) R 7 (b', 'line\nfeed', '', ')))', 'tab\tin it'])(
    'is not led astray by a name of the program’s own choosing: %j',
    (comm) => {
      expect(parseStat(line.replace('python3', () => comm))).toMatchObject({
        comm,
        state: 'S',
        ppid: 1,
        start: 987654,
      });
    },
  );

  it('is read for any name and start', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 15 }), fc.nat(), (comm, start) => {
        expect(parseStat(statLine({ pid: 7, comm, start }))).toMatchObject({ pid: 7, comm, state: 'S', start });
      }),
    );
  });

  it('of this very process says who we are', () => {
    const { pid, ppid, start } = parseStat(readFileSync('/proc/self/stat', 'utf8'));
    expect({ pid, ppid }).toEqual({ pid: process.pid, ppid: process.ppid });
    expect(start).toBeGreaterThan(0);
  });
});

describe('/proc/PID/status', () => {
  const text = `Name:\tpython3
Umask:\t0022
State:\tS (sleeping)
TracerPid:\t77
Uid:\t1000\t1001\t1002\t1003
NSpid:\t4242\t17\t1
VmRSS:\t    2048 kB
RssAnon:\t    1024 kB
RssFile:\t     512 kB
RssShmem:\t     512 kB
Threads:\t12
SigPnd:\t0000000000000001
ShdPnd:\t0000000000004000
SigBlk:\t8000000000004000
CapPrm:\t000001ffffffffff
CapBnd:\t00000000a80425fb
NoNewPrivs:\t1
Seccomp:\t2
`;

  it('is read, masks as 64-bit sets and sizes in bytes', () => {
    expect(parseStatus(text)).toEqual({
      uid: 1000,
      nspid: [4242, 17, 1],
      tracerPid: 77,
      pendingSignals: 0x4001n,
      blockedSignals: 0x8000000000004000n,
      permittedCaps: 0x1ffffffffffn,
      boundingCaps: 0xa80425fbn,
      noNewPrivs: true,
      seccompMode: 2,
      threads: 12,
      residentBytes: 2 << 20,
      ownBytes: 1536 << 10,
    });
  });

  it('of a zombie, which has no memory, is read too', () => {
    const zombie = text.replace(/^(VmRSS|Rss\w+):.*\n/gm, '');
    expect(parseStatus(zombie)).toMatchObject({ residentBytes: 0, ownBytes: 0, threads: 12 });
  });

  it('of this very process names its PID and its memory', () => {
    const status = parseStatus(readFileSync('/proc/self/status', 'utf8'));
    expect(status.nspid.at(-1)).toBe(process.pid);
    expect(status.residentBytes).toBeGreaterThan(10 << 20);
    expect(status.ownBytes).toBeLessThanOrEqual(status.residentBytes);
  });
});

describe('/proc/PID/mountinfo', () => {
  it('is read with any number of optional fields', () => {
    const text = `22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/u,workdir=/w
23 22 0:5 /sub /dev rw,nosuid shared:2 master:7 propagate_from:3 - devtmpfs udev rw,size=1k
`;
    expect(parseMountinfo(text)).toEqual([
      {
        id: 22,
        device: '0:21',
        root: '/',
        mountPoint: '/',
        fstype: 'overlay',
        source: 'overlay',
        superOptions: ['rw', 'lowerdir=/l1:/l2', 'upperdir=/u', 'workdir=/w'],
      },
      {
        id: 23,
        device: '0:5',
        root: '/sub',
        mountPoint: '/dev',
        fstype: 'devtmpfs',
        source: 'udev',
        superOptions: ['rw', 'size=1k'],
      },
    ]);
  });

  it('has blanks, tabs, line feeds and backslashes in its paths', () => {
    const [mount] = parseMountinfo(
      '1 0 8:1 /a\\040b /mnt\\011x\\012y\\134z\\040-\\040w rw - ext4 /dev/disk\\040one rw,upperdir=/u\\040p\\054q\n',
    );
    expect(mount).toMatchObject({ root: '/a b', mountPoint: '/mnt\tx\ny\\z - w', source: '/dev/disk one' });
    expect(mount?.superOptions).toEqual(['rw', 'upperdir=/u p,q']);
  });

  it('does not take an escaped backslash with digits behind it for another escape', () => {
    expect(parseMountinfo('1 0 8:1 / /a\\134040b rw - ext4 x rw\n')[0]?.mountPoint).toBe('/a\\040b');
  });

  it('keeps names that are not ASCII', () => {
    expect(parseMountinfo('1 0 8:1 / /tür/模型 rw - ext4 x rw\n')[0]?.mountPoint).toBe('/tür/模型');
  });

  it('of this very process has a root and a proc', () => {
    const points = parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
    expect(points.filter(({ mountPoint }) => mountPoint === '/').length).toBeGreaterThan(0);
    expect(points.some(({ fstype }) => fstype === 'proc')).toBe(true);
  });

  it('is empty where the text is', () => {
    expect(parseMountinfo('')).toEqual([]);
  });
});

describe('/proc/PID/net', () => {
  const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';
  const row = (local: string, remote: string, state = '0A', inode = 555) =>
    `${head}   0: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  1000        0 ${inode} 1 0000000000000000 100 0 0 10 0\n`;
  const v4 = (hex: string) => parseNetSockets(row(`${hex}:1F90`, '00000000:0000'))[0]?.localAddress;
  const v6 = (hex: string) => parseNetSockets(row(`${hex}:1F90`, `${'0'.repeat(32)}:0000`))[0]?.localAddress;

  it('is read, addresses and ports out of hex', () => {
    expect(parseNetSockets(row('0100007F:1F90', '0205A8C0:01BB', '01'))).toEqual([
      {
        inode: 555,
        localAddress: '127.0.0.1',
        localPort: 8080,
        remoteAddress: '192.168.5.2',
        remotePort: 443,
        state: 1,
      },
    ]);
  });

  it('has nothing where there is only the head', () => {
    expect(parseNetSockets(head)).toEqual([]);
    expect(parseNetSockets('')).toEqual([]);
  });

  it.each([
    ['00000000', '0.0.0.0'],
    ['FFFFFFFF', '255.255.255.255'],
    ['0100000A', '10.0.0.1'],
  ])('knows the IPv4 address %s as %s', (hex, address) => {
    expect(v4(hex)).toBe(address);
  });

  /** What the kernel prints for an address: its 32-bit words in the byte order of the host. */
  const hexOf = (groups: string) =>
    (groups.match(/.{8}/g) ?? [])
      .map((word) => (word.match(/../g) ?? []).toReversed().join(''))
      .join('')
      .toUpperCase();

  it.each([
    ['00000000000000000000000000000000', '::'],
    ['00000000000000000000000000000001', '::1'],
    ['0000000000000000 0000ffff 0a000001', '10.0.0.1'],
    ['20010db8000000000000000000000001', '2001:db8::1'],
    ['20010db8000000010001000100010001', '2001:db8:0:1:1:1:1:1'],
    ['20010db8000000000001000000000001', '2001:db8::1:0:0:1'],
    ['20010000000000010000000000000001', '2001:0:0:1::1'],
    ['fe800000000000000000000000000000', 'fe80::'],
    ['00010000000000000000000000000000', '1::'],
    ['0001000200030004000500060007ABCD', '1:2:3:4:5:6:7:abcd'],
    ['fd00000a00b000c00000000000000000', 'fd00:a:b0:c0::'],
  ])('knows the IPv6 address %s as RFC 5952 writes it: %s', (groups, address) => {
    expect(v6(hexOf(groups.replaceAll(' ', '')))).toBe(address);
  });

  it('writes IPv6 addresses as URLs do', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.constant(0), fc.nat(0xffff)), { minLength: 8, maxLength: 8 }), (words) => {
        fc.pre(words.slice(0, 6).some((word) => word !== 0));
        const groups = words.map((word) => word.toString(16).padStart(4, '0'));
        const url = new URL(`http://[${groups.join(':')}]/`);
        expect(`[${v6(hexOf(groups.join('')))}]`).toBe(url.hostname);
      }),
    );
  });
});

describe('a wait status', () => {
  it.each([
    [0x0000, 0],
    [0x0100, 1],
    [0xff00, 255],
    [0x2a00, 42],
    [9, 137],
    [15, 143],
    [0x80 | 11, 139],
  ])('%i is exit code %i', (status, code) => {
    expect(exitCodeOf(status)).toBe(code);
  });
});

describe('/proc/cpuinfo', () => {
  const text = `processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R)
flags\t\t: fpu vme sse2 avx512f amx_tile sse4_2 aes vaes hypervisor constant_tsc popcnt abm xsaveopt rtm aes_other

processor\t: 1
vendor_id\t: AuthenticAMD
flags\t\t: avx2
`;

  it('is read for the first processor, and only what user code may have detected', () => {
    expect(parseCpu(text)).toEqual({
      vendor: 'GenuineIntel',
      family: 6,
      model: 143,
      features: ['abm', 'aes', 'amx_tile', 'avx512f', 'popcnt', 'rtm', 'sse2', 'sse4_2', 'vaes', 'xsaveopt'],
    });
  });

  it('of another architecture has none of it', () => {
    expect(parseCpu('processor\t: 0\nFeatures\t: fp asimd\n')).toEqual({
      vendor: '',
      family: 0,
      model: 0,
      features: [],
    });
  });
});
