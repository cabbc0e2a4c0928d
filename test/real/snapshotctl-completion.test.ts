import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeProgram, type Program } from '../flow/snapshotctl-agents/program.ts';

/** The completion scripts, in the shells that they are for. */

const run = promisify(execFile);
let program: Program;
let directory: string;
const scriptOf = (shell: string) => join(directory, `completion.${shell}`);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'completion-'));
  program = await makeProgram();
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { out } = await program.run(['completion', shell]);
    await writeFile(scriptOf(shell), out);
  }
});
afterAll(async () => {
  await program?.remove();
  await rm(directory, { recursive: true, force: true });
});

/** What bash offers behind these words. */
async function bash(...words: string[]): Promise<string[]> {
  const text = `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _snapshotctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await run('bash', ['--norc', '-c', text, 'bash', scriptOf('bash'), 'snapshotctl', ...words], {
    cwd: directory,
  });
  return stdout.split('\n').filter((line) => line !== '');
}

async function fish(line: string): Promise<string[]> {
  const { stdout } = await run('fish', ['--no-config', '-c', `source "${scriptOf('fish')}"; complete -C "${line}"`], {
    env: { ...process.env, HOME: directory },
  });
  return stdout.split('\n').flatMap((each) => (each === '' ? [] : [each.split('\t', 1)[0] ?? '']));
}

/** Types a line and two tabs into zsh, and answers when what it shows fits. */
function zsh(line: string, pattern: RegExp): Promise<string> {
  const child = spawn('script', ['-qefc', 'zsh -f -i', '/dev/null'], {
    env: { ...process.env, TERM: 'dumb', HOME: directory },
  });
  let shown = '';
  let isTyped = false;
  const ended = new Promise<string>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => (pattern.test(shown) ? resolve(shown) : reject(new Error(`zsh showed: ${shown}`))));
  });
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text;
    if (!isTyped && shown.includes('LOADED-2')) {
      isTyped = true;
      shown = '';
      child.stdin.write(`${line}\t\t`);
    } else if (isTyped && pattern.test(shown)) child.stdin.end('\u0015exit\r');
  });
  child.stdin.write(
    `autoload -U compinit; compinit -u -d ${join(directory, 'dump')}; source ${scriptOf('zsh')}; echo LOADED-$(( 1 + 1 ))\r`,
  );
  return ended;
}

const COMMANDS = ['list', 'inspect', 'verify', 'diff', 'watch', 'delete', 'report', 'nodes', 'completion', 'help'];

describe('bash', () => {
  test('offers the commands, and not what is hidden', async () => {
    const offered = await bash('');
    expect(offered).toEqual(expect.arrayContaining(COMMANDS));
    expect(offered).not.toContain('relay');
    expect(await bash('in')).toEqual(['inspect']);
  });

  test('offers the flags of a command, and the values of a flag', async () => {
    expect(await bash('delete', '--w')).toEqual(['--wait']);
    expect(await bash('list', '--w')).toEqual([]);
    expect(await bash('list', '-o', '')).toEqual(['text', 'json', 'yaml']);
    expect(await bash('list', '--node', 'node-a', '--output', 'y')).toEqual(['yaml']);
    expect(await bash('completion', '')).toEqual(expect.arrayContaining(['bash', 'zsh', 'fish']));
    expect(await bash('help', 'ver')).toEqual(['verify']);
  });

  test('offers files where a flag takes one', async () => {
    expect(await bash('list', '--kubeconfig', 'completion.z')).toEqual(['completion.zsh']);
  });
});

test('fish offers the commands, flags and values', async () => {
  expect(await fish('snapshotctl ')).toEqual(expect.arrayContaining(COMMANDS));
  expect(await fish('snapshotctl delete --w')).toEqual(['--wait']);
  expect(await fish('snapshotctl list -o ')).toEqual(expect.arrayContaining(['text', 'json', 'yaml']));
});

test('zsh offers the commands, flags and values', async () => {
  await zsh('snapshotctl ', /inspect +-- Show what an artifact[\s\S]*watch +-- Follow/);
  await zsh('snapshotctl list --output ', /json +text +yaml/);
  await zsh('snapshotctl delete --wa', /--wait/);
});
