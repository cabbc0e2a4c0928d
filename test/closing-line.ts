import { readFileSync } from 'node:fs';

/** The parts of vitest's JSON report that are counted. */
interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      /** Of a test that passed: what its first try failed with. */
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

let passed = 0;
let failed = 0;
let skipped = 0;
for (const file of process.argv.slice(2)) {
  try {
    count(JSON.parse(readFileSync(file, 'utf8')) as Report);
  } catch (error) {
    // No report: the run itself broke, which counts as one failure.
    console.error(`no test report: ${String(error)}`);
    failed++;
  }
}

function count({ testResults }: Report): void {
  for (const { status, assertionResults } of testResults) {
    const inFile = assertionResults.filter((one) => one.status === 'failed').length;
    // A file that fails outside its tests, while it is loaded or set up, counts as one failure.
    failed += status === 'failed' && inFile === 0 ? 1 : inFile;
    for (const { fullName, status: ended, failureMessages } of assertionResults)
      if (ended === 'passed' && failureMessages.length > 0)
        console.log(`passed at the second try: ${fullName}: ${failureMessages[0]?.split('\n')[0]}`);
    passed += assertionResults.filter((one) => one.status === 'passed').length;
    skipped += assertionResults.filter((one) => one.status !== 'failed' && one.status !== 'passed').length;
  }
}
if (passed + failed === 0) {
  console.error('no test ran');
  failed++;
}
console.log(`tests: ${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
