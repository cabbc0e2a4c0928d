import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { host } from '../real/environment/host.ts';
import type { Gpu } from './harness/gpus.ts';

/** What the figures were measured on. */
export async function machineFacts(gpus: readonly Gpu[]): Promise<Record<string, unknown>> {
  const first = (text: string) => text.split('\n')[0] ?? '';
  const version = (argv: readonly [string, ...string[]]) => host(argv).then(first, () => 'none');
  return {
    gpus,
    cpu: `${cpus()[0]?.model} × ${cpus().length}`,
    memoryGib: Number((totalmem() / 2 ** 30).toFixed(1)),
    kernel: release(),
    transparentHugePages: readFileSync('/sys/kernel/mm/transparent_hugepage/enabled', 'utf8').trim(),
    python: await version(['python3', '--version']),
    pytorch: await version(['python3', '-c', 'import importlib.metadata as m; print(m.version("torch"))']),
    runc: await version(['runc', '--version']),
  };
}
