#!/usr/bin/env node
import { runSnapshotctl } from './cli.ts';
import { processTerminal } from './terminal.ts';

const terminal = processTerminal(process);
process.exitCode = await runSnapshotctl(process.argv.slice(2), terminal);
