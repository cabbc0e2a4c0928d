import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { VERSION } from '../../contract/version.ts';
import type { Bill } from '../../deploy/images/bill/cyclonedx.ts';
import { host, REPOSITORY } from './environment/host.ts';

/** What the operator's image has, run as its containers run it: the operator as nobody, the cleanup as root without any capability. */

const IMAGES = resolve(REPOSITORY, 'deploy/images');
const BELOW = resolve(REPOSITORY, '.cache/operator-root');
const work = mkdtempSync(join(tmpdir(), 'operator-image-'));
const root = join(work, 'root');
const added = join(work, 'added');
afterAll(() => rmSync(work, { recursive: true }));

beforeAll(async () => {
  await host([join(IMAGES, 'make-root.sh'), join(IMAGES, 'operator/packages.txt'), BELOW], { timeoutMs: 500_000 });
  await host([join(IMAGES, 'lay-out.sh'), 'operator', REPOSITORY, added, BELOW]);
  await host(['cp', '-a', BELOW, root]);
  await host(['cp', '-a', `${added}/.`, root]);
}, 600_000);

/** In namespaces of its own, which go with it. */
const inImage = (...command: string[]) =>
  host(['unshare', '--mount', '--pid', '--fork', `--mount-proc=${join(root, 'proc')}`, 'chroot', ...command]);

test('the operator runs as the user of the image', async () => {
  const { User } = JSON.parse(readFileSync(join(IMAGES, 'operator/image.json'), 'utf8')) as { User: string };
  expect((await inImage(`--userspec=${User}`, root, 'snapshot-operator', '--version')).trim()).toBe(VERSION);
});

test('the cleanup removes what root owns and nobody else may enter, without any capability', async () => {
  const artifact = join(root, 'checkpoints/one/versions/1');
  mkdirSync(join(artifact, 'criu'), { recursive: true });
  writeFileSync(join(artifact, 'criu/pages-1.img'), 'x', { mode: 0o600 });
  await host(['chmod', '-R', 'go=', join(root, 'checkpoints/one')]);
  const env = ['CHECKPOINT_BASE_PATH=/checkpoints', 'CHECKPOINT_ID=one', 'CHECKPOINT_NAMESPACE=demo'];
  const powerless = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];
  await inImage(root, 'env', ...env, ...powerless, 'snapshot-cleanup');
  expect(existsSync(join(root, 'checkpoints'))).toBe(true);
  expect(existsSync(join(root, 'checkpoints/one'))).toBe(false);
});

test('its bill has our two programs, Node.js, and nothing of the agent', () => {
  const bill = JSON.parse(readFileSync(join(added, 'usr/share/snapshot/bom.json'), 'utf8')) as Bill;
  const ours = bill.components.filter(({ type, version }) => type === 'application' && version === VERSION);
  expect(ours.map(({ name }) => name).sort()).toEqual(['snapshot-cleanup', 'snapshot-operator']);
  const names = bill.components.map(({ name }) => name);
  expect(names).toContain('nodejs');
  expect(names).not.toContain('criu');
  expect(readFileSync(join(added, 'opt/snapshot-operator/versions.txt'), 'utf8')).toMatch(
    `snapshot-operator ${VERSION}\n`,
  );
});
