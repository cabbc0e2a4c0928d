import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Beat, openSession, type Session } from '../native/cuda-session.ts';
import { standinPath, tidyUp } from '../native/programs.ts';
import { Standin, standinGpu } from '../native/standin/standin.ts';
import {
  type CriuRoom,
  dump,
  externalMounts,
  openCriuRoom,
  restoreStopped,
  startWorkload,
  until,
} from './criu-images.ts';

// What the tests of the CUDA steps rest on: a process of the stand-in lives through a dump and a restore by CRIU in between its calls, in
// another PID namespace and under another PID, as a CUDA process does.

let room: CriuRoom;

beforeAll(async () => {
  room = await openCriuRoom();
  copyFileSync(standinPath('standin-worker'), join(room.exchange, 'standin-worker'));
});
afterAll(async () => {
  room?.close();
  await tidyUp();
});

/** A process with memory on one GPU, in a room of its own, which sees the stand-in at another path than the session does. */
async function startWorker(name: string, ...args: string[]) {
  const standin = new Standin(join(room.exchange, name), [standinGpu(0), standinGpu(1)]);
  const report = join(room.exchange, `${name}.report`);
  mkdirSync(join(standin.directory, 'container'));
  const giveGpu = (index: number) =>
    writeFileSync(join(standin.directory, 'container/nvidia0'), `${standinGpu(index).uuid}\n`);
  giveGpu(0);
  const settings = { SNAPSHOT_STANDIN_DIR: `/exchange/${name}`, SNAPSHOT_STANDIN_DEV: `/exchange/${name}/container` };
  const command = ['/exchange/standin-worker', '--report', `/exchange/${name}.report`, '--bytes', `${8 << 20}`];
  // The room's workloads inherit this process's environment.
  Object.assign(process.env, settings);
  const { pid } = await startWorkload(room, [...command, ...args]);
  for (const key of Object.keys(settings)) delete process.env[key];
  const last = () => JSON.parse(readFileSync(report, 'utf8')) as Beat;
  await until(() => last().beat > 0, 'the first beat');
  return { standin, pid, last, giveGpu };
}

async function ask(session: Session, request: string): Promise<void> {
  expect(await session.ask(request), request).toMatchObject({ ok: true });
}

test.each(['private', 'shared', 'memfd'])('with the copy in %s memory, onto another GPU', async (kind) => {
  const { standin, pid, last, giveGpu } = await startWorker(kind, '--host-copy', kind);
  const session = await openSession(standin);
  await ask(session, `lock ${pid} 30000`);
  await ask(session, `checkpoint ${pid}`);
  const before = last();
  const mounts = externalMounts(pid);
  dump(room, pid, `images-${kind}`);

  giveGpu(1);
  const restored = await restoreStopped(room, `images-${kind}`, mounts);
  expect(restored).not.toBe(pid);
  expect(await session.ask(`state ${pid}`)).toMatchObject({ ok: false });
  expect(await session.ask(`state ${restored}`)).toEqual({ ok: true, state: 'checkpointed' });
  process.kill(restored, 'SIGCONT');
  const [U0, U1] = [standinGpu(0).uuid, standinGpu(1).uuid];
  expect(await session.ask(`restore ${restored}`)).toMatchObject({ ok: false, name: 'CUDA_ERROR_INVALID_DEVICE' });
  await ask(session, `restore ${restored} ${U0}=${U1}`);
  expect(last()).toEqual(before);
  await ask(session, `unlock ${restored}`);
  await until(() => last().beat > before.beat, 'a further beat');
  expect(last()).toMatchObject({ hash: before.hash, reported: [U0], on: [U1] });
  expect(await session.ask('processes')).toEqual({
    ok: true,
    processes: [{ pid: restored, gpu: U1, bytes: 8 << 20 }],
  });
});
