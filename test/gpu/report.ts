import { createWriteStream, type WriteStream } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

type Value = number | string | boolean;
export type Row = Readonly<Record<string, Value>>;

interface Check {
  readonly name: string;
  readonly passed: boolean;
  readonly seconds: number;
  readonly problem?: string;
}

interface SectionResult {
  readonly section: string;
  readonly checks: Check[];
  readonly figures: Record<string, Value>;
  readonly tables: Record<string, Row[]>;
}

/** What one section found: printed as it comes, and kept for results.json. */
export class SectionReport {
  readonly result: SectionResult;
  readonly #say: (line: string) => void;

  constructor(section: string, say: (line: string) => void) {
    this.result = { section, checks: [], figures: {}, tables: {} };
    this.#say = say;
  }

  /** Something that must hold: `work` throws where it does not. What it returns is passed on, undefined after a failure. */
  async check<T>(name: string, work: () => Promise<T> | T): Promise<T | undefined> {
    const startedAt = performance.now();
    const secondsSince = () => (performance.now() - startedAt) / 1000;
    try {
      const value = await work();
      const seconds = secondsSince();
      this.result.checks.push({ name, passed: true, seconds });
      this.#say(`  ok      ${name} (${seconds.toFixed(2)} s)`);
      return value;
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      this.result.checks.push({ name, passed: false, seconds: secondsSince(), problem });
      this.#say(`  FAILED  ${name}: ${problem.replaceAll('\n', '\n          ')}`);
      return undefined;
    }
  }

  figure(name: string, value: number, unit = ''): void {
    this.result.figures[unit === '' ? name : `${name} (${unit})`] = value;
    this.#say(`          ${name}: ${rounded(value)}${unit === '' ? '' : ` ${unit}`}`);
  }

  note(name: string, text: string): void {
    this.result.figures[name] = text;
    this.#say(`          ${name}: ${text}`);
  }

  /** Prints rows under a title, with the columns of the first row. */
  table(title: string, rows: readonly Row[]): void {
    this.result.tables[title] = [...rows];
    this.#say(`  ${title}`);
    for (const line of markdown(rows)) this.#say(`    ${line}`);
  }
}

const rounded = (value: Value) => (typeof value === 'number' ? Number(value.toFixed(3)) : value);

function markdown(rows: readonly Row[]): string[] {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const line = (cells: readonly Value[]) => `| ${cells.join(' | ')} |`;
  return [
    line(columns),
    line(columns.map(() => '---')),
    ...rows.map((row) => line(columns.map((column) => rounded(row[column] ?? '')))),
  ];
}

/** The whole run: a readable report on standard output and in report.txt, every figure in results.json. */
export class Report {
  readonly #directory: string;
  readonly #text: WriteStream;
  readonly #sections: SectionReport[] = [];
  #machine: Readonly<Record<string, unknown>> = {};

  private constructor(directory: string) {
    this.#directory = directory;
    this.#text = createWriteStream(join(directory, 'report.txt'));
  }

  static async open(directory: string): Promise<Report> {
    await mkdir(directory, { recursive: true });
    return new Report(directory);
  }

  readonly say = (line: string): void => {
    process.stdout.write(`${line}\n`);
    this.#text.write(`${line}\n`);
  };

  machine(facts: Readonly<Record<string, unknown>>): void {
    this.#machine = facts;
    for (const [name, value] of Object.entries(facts)) this.say(`${name}: ${JSON.stringify(value)}`);
  }

  section(name: string, what: string): SectionReport {
    this.say(`\n== ${name}: ${what}`);
    const section = new SectionReport(name, this.say);
    this.#sections.push(section);
    return section;
  }

  /** Written after each section: what ends the run in the middle takes nothing away. */
  async save(): Promise<void> {
    const results = {
      measuredAt: new Date().toISOString(),
      machine: this.#machine,
      sections: this.#sections.map(({ result }) => result),
    };
    await writeFile(join(this.#directory, 'results.json'), `${JSON.stringify(results, null, 2)}\n`);
  }

  /** Prints the closing line; true where nothing failed. A run without a single check has not passed. */
  async close(): Promise<boolean> {
    const checks = this.#sections.flatMap(({ result }) => result.checks);
    const failed = checks.filter(({ passed }) => !passed);
    for (const { name, problem } of failed) this.say(`FAILED ${name}: ${problem?.split('\n')[0]}`);
    this.say(`gpu-test: ${checks.length - failed.length} passed, ${failed.length} failed`);
    await this.save();
    await new Promise<void>((resolve) => this.#text.end(resolve));
    return checks.length > 0 && failed.length === 0;
  }
}
