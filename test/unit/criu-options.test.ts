import { describe, expect, it } from 'vitest';
import { type DumpOptions, dumpArguments, type RestoreOptions, restoreArguments } from '../../agent/criu/options.ts';

const dump: DumpOptions = {
  binary: '/usr/sbin/criu',
  imagesDir: '/volume/raw',
  workDir: '/run/op',
  logLevel: 2,
  pid: 4242,
  rootPath: '/host/proc/4242/root',
  netInode: 4026532000,
  externalMounts: ['/dev', '/models'],
  skippedMounts: [],
  tty: undefined,
  ghostLimit: 1000,
  irmapScanPaths: [],
  actionScript: '/run/hook',
  leaveRunning: true,
};
const restore: RestoreOptions = {
  binary: '/usr/sbin/criu',
  imagesDir: '/run/op/artifact/criu',
  workDir: '/run/op',
  logLevel: 1,
  rootPath: '/run/op/root',
  pidfile: '/run/op/restored.pid',
  externalMounts: ['/dev', '/models'],
  netFd: 20,
  inherited: [],
};

describe('the command line of criu dump', () => {
  it('leaves a worker running, with its mounts and its network outside', () => {
    expect(dumpArguments(dump)).toEqual([
      ...['/usr/sbin/criu', 'dump'],
      ...['--images-dir', '/volume/raw', '--work-dir', '/run/op', '--log-file', 'dump.log', '-v2'],
      ...['-t', '4242', '--root', '/host/proc/4242/root'],
      ...['--external', 'mnt[/dev]:/dev', '--external', 'mnt[/models]:/models'],
      ...['--external', 'net[4026532000]:extNetNs'],
      ...[
        '--shell-job',
        '--tcp-established',
        '--file-locks',
        '--link-remap',
        '--manage-cgroups=ignore',
        '--force-irmap',
      ],
      ...['--skip-in-flight', '--ghost-limit', '1000', '--network-lock', 'skip'],
      ...['--action-script', '/run/hook', '--leave-running'],
    ]);
  });

  it('differs in one word for a worker that is to end', () => {
    const stop = dumpArguments({ ...dump, leaveRunning: false });
    expect(stop).toEqual(dumpArguments(dump).filter((word) => word !== '--leave-running'));
    expect(stop).not.toContain('--leave-running');
  });

  it('leaves out mounts that another container has not', () => {
    const words = dumpArguments({ ...dump, skippedMounts: ['/dev/nvidia0', '/dev/nvidiactl'] });
    const added = words.filter((word) => !dumpArguments(dump).includes(word));
    expect(added).toEqual(['--skip-mnt', '/dev/nvidia0', '--skip-mnt', '/dev/nvidiactl']);
  });

  it('names the terminal of a container that has one', () => {
    const words = dumpArguments({ ...dump, tty: '8800:36' });
    const at = words.indexOf('tty[8800:36]');
    expect(words[at - 1]).toBe('--external');
    expect(words.toSpliced(at - 1, 2)).toEqual(dumpArguments(dump));
  });

  it('names each directory to be searched for watched files', () => {
    const words = dumpArguments({ ...dump, irmapScanPaths: ['/etc', '/a b'] });
    expect(words.slice(-7)).toEqual([
      ...['--irmap-scan-path', '/etc', '--irmap-scan-path', '/a b'],
      ...['--action-script', '/run/hook', '--leave-running'],
    ]);
  });

  it.each([
    [0, '-v0'],
    [1, '-v1'],
    [2, '-v2'],
    [4, '-v2'],
  ])('never logs so much that a damaged image could fill a disk: level %i is %s', (logLevel, word) => {
    expect(dumpArguments({ ...dump, logLevel })).toContain(word);
    expect(restoreArguments({ ...restore, logLevel })).toContain(word);
  });
});

describe('the command line of criu restore', () => {
  it('takes mounts and network from the placeholder, and leaves the tree stopped', () => {
    expect(restoreArguments(restore)).toEqual([
      ...['/usr/sbin/criu', 'restore'],
      ...['--images-dir', '/run/op/artifact/criu', '--work-dir', '/run/op', '--log-file', 'restore.log', '-v1'],
      ...['--root', '/run/op/root'],
      ...['--external', 'mnt[/dev]:/run/op/root/dev', '--external', 'mnt[/models]:/run/op/root/models'],
      ...['--inherit-fd', 'fd[20]:extNetNs'],
      ...[
        '--shell-job',
        '--tcp-established',
        '--file-locks',
        '--link-remap',
        '--manage-cgroups=ignore',
        '--force-irmap',
      ],
      ...['--leave-stopped', '--restore-detached', '--pidfile', '/run/op/restored.pid'],
    ]);
  });

  it('hands over descriptors in place of the dumped ones, each under its label', () => {
    const inherited = [
      { fd: 22, label: 'pipe:[1]' },
      { fd: 21, label: 'tty[8800:36]' },
    ];
    const words = restoreArguments({ ...restore, inherited });
    const at = words.indexOf('fd[20]:extNetNs');
    expect(words.slice(at + 1, at + 5)).toEqual([
      '--inherit-fd',
      'fd[22]:pipe:[1]',
      '--inherit-fd',
      'fd[21]:tty[8800:36]',
    ]);
    expect(words.toSpliced(at + 1, 4)).toEqual(restoreArguments(restore));
  });

  it('agrees with the dump on everything that both must know', () => {
    const shared = (words: string[]) => words.slice(words.indexOf('--shell-job'), words.indexOf('--force-irmap') + 1);
    expect(shared(restoreArguments(restore))).toEqual(shared(dumpArguments(dump)));
    expect(shared(dumpArguments(dump)).length).toBe(6);
  });
});
