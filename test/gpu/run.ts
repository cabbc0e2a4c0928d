import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Bench, type Options, type Section } from './bench.ts';
import { machineGpus } from './harness/gpus.ts';
import { standInGpus } from './harness/stand-in.ts';
import { machineFacts } from './machine.ts';
import { Report } from './report.ts';
import { compileWorkers } from './sections/compile-workers.ts';
import { container } from './sections/container.ts';
import { cpu } from './sections/cpu.ts';
import { faults } from './sections/faults.ts';
import { limits } from './sections/limits.ts';
import { live } from './sections/live.ts';
import { llama } from './sections/llama.ts';
import { torch } from './sections/torch.ts';
import { twoGpus } from './sections/two-gpus.ts';

const SECTIONS: readonly Section[] = [limits, cpu, container, torch, live, compileWorkers, faults, twoGpus, llama];
const USAGE = `usage: run.mjs [--only NAME,…] [--out DIRECTORY] [--kv-gib 20] [--stand-in]

Checkpoints and restores GPU workers through the agent, in containers that runc makes. Without --only: every section that the machine
has the GPUs for. Reports, results.json and logs go to DIRECTORY, by default $OUT, else gpu-results.
--stand-in: no GPU but what stands for one in tests (make -C native standin), so that figures mean nothing.

${SECTIONS.map(({ name, gpus, what }) => `  ${name.padEnd(10)} ${what}${gpus > 0 ? ` (${gpus} GPU)` : ''}`).join('\n')}
`;

async function main(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', default: '' },
      out: { type: 'string', default: process.env['OUT'] ?? 'gpu-results' },
      'kv-gib': { type: 'string', default: '20' },
      'stand-in': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return true;
  }
  const machine = values['stand-in'] ? standInGpus() : await machineGpus();
  const options: Options = { out: resolve(values.out), kvGib: Number(values['kv-gib']), machine };
  const report = await Report.open(options.out);
  const gpus = machine?.gpus ?? [];
  report.machine(await machineFacts(gpus));
  for (const section of chosen(values.only, gpus.length)) {
    await runSection(section, { report, options, gpus: gpus.length });
    await report.save();
  }
  machine?.close();
  return await report.close();
}

/** Those asked for by name, whatever the machine has; else all that it has the GPUs for. */
function chosen(only: string, gpus: number): readonly Section[] {
  if (only === '') return SECTIONS.filter((section) => section.gpus <= gpus);
  return only.split(',').map((wanted) => {
    const section = SECTIONS.find(({ name }) => name === wanted);
    if (section === undefined) throw new Error(`there is no section ${wanted}\n\n${USAGE}`);
    return section;
  });
}

async function runSection(
  section: Section,
  { report, options, gpus }: { report: Report; options: Options; gpus: number },
): Promise<void> {
  const own = report.section(section.name, section.what);
  const bench = new Bench(own, options);
  await own.check(`${section.name}: comes to its end`, async () => {
    if (gpus < section.gpus) throw new Error(`this machine has ${gpus} GPU, ${section.gpus} are needed`);
    await withDeadline(section.deadlineMs, section.run(bench));
  });
  await own.check(`${section.name}: leaves nothing behind`, () => bench.clean());
}

async function withDeadline(ms: number, work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not over after ${ms / 1000} s`)), ms);
  });
  // What is still under way fails once everything it works with is taken down: that is no news then.
  work.catch(() => undefined);
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

process.exit((await main()) ? 0 : 1);
