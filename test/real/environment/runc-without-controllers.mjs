#!/usr/bin/env node
// runc for a v2 hierarchy without controllers (cgroup-v2.sh on a hybrid machine): limits that nobody could enforce are left out of
// the bundle, device rules stay.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const args = process.argv.slice(2);
const bundle = args.indexOf('--bundle');
if (args.includes('create') && bundle >= 0) {
  const path = join(args[bundle + 1], 'config.json');
  const spec = JSON.parse(readFileSync(path, 'utf8'));
  spec.linux.resources = { devices: spec.linux.resources?.devices ?? [] };
  writeFileSync(path, JSON.stringify(spec));
}
const { status, signal } = spawnSync('runc', args, { stdio: 'inherit' });
if (signal) process.kill(process.pid, signal);
process.exit(status ?? 1);
