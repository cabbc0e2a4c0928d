import { afterEach, describe, expect, it } from 'vitest';
import { memoryRoom } from '../../../agent/container/memory-room.ts';
import { makeProcfs, type Procfs } from '../../fakes/procfs.ts';

let procfs: Procfs;
afterEach(() => procfs.remove());

const MIB = 1 << 20;

async function room(cgroup: string, files: Record<string, string>, available = '1000000 kB') {
  procfs = await makeProcfs([{ pid: 10, files: { cgroup } }]);
  await procfs.write('meminfo', `MemTotal:  9 kB\nMemAvailable:   ${available}\n`);
  for (const [path, text] of Object.entries(files)) await procfs.write(`cg/${path}`, text);
  return await memoryRoom({ procRoot: procfs.root, cgroupRoot: `${procfs.root}/cg` }, 10);
}

describe('the memory that a process may still take', () => {
  it('is that of the node without a limit', async () => {
    expect(await room('0::/pod/c\n', { 'pod/c/memory.max': 'max\n', 'pod/c/memory.current': '5\n' })).toEqual({
      bytes: 1_000_000 * 1024,
      boundBy: 'node',
    });
  });

  it('is what the limit of the container leaves, and page cache counts as free', async () => {
    const files = {
      'pod/c/memory.max': `${100 * MIB}\n`,
      'pod/c/memory.current': `${60 * MIB}\n`,
      'pod/c/memory.stat': `anon 1\ninactive_file ${8 * MIB}\nactive_file ${2 * MIB}\nshmem ${4 * MIB}\n`,
    };
    expect(await room('0::/pod/c\n', files)).toEqual({ bytes: 50 * MIB, boundBy: 'cgroup' });
  });

  it('is bound by the pod where that leaves less', async () => {
    const files = {
      'pod/memory.max': `${70 * MIB}\n`,
      'pod/memory.current': `${69 * MIB}\n`,
      'pod/c/memory.max': `${100 * MIB}\n`,
      'pod/c/memory.current': `${60 * MIB}\n`,
    };
    expect(await room('0::/pod/c\n', files)).toEqual({ bytes: MIB, boundBy: 'cgroup' });
  });

  it('is none where more is used than allowed', async () => {
    const files = { 'c/memory.max': '10\n', 'c/memory.current': '20\n' };
    expect(await room('0::/c\n', files)).toMatchObject({ bytes: 0 });
  });

  it('is read from the hierarchy of version 1 as well, and from version 2 beside it', async () => {
    const v1 = {
      'memory/pod/c/memory.limit_in_bytes': `${100 * MIB}\n`,
      'memory/pod/c/memory.usage_in_bytes': `${60 * MIB}\n`,
      'memory/pod/c/memory.stat': `cache 1\ntotal_inactive_file ${MIB}\ntotal_active_file 0\n`,
      'memory/pod/memory.limit_in_bytes': '9223372036854771712\n',
      'memory/pod/memory.usage_in_bytes': '1\n',
    };
    expect(await room('8:memory:/pod/c\n3:pids:/pod/c\n0::/\n', v1)).toEqual({ bytes: 41 * MIB, boundBy: 'cgroup' });
    await procfs.remove();
    const v2 = { 'unified/c/memory.max': '30\n', 'unified/c/memory.current': '10\n' };
    expect(await room('3:pids:/c\n0::/c\n', v2)).toEqual({ bytes: 20, boundBy: 'cgroup' });
  });
});
