import { describe, expect, it } from 'vitest';
import { restorePod } from '../../../../contract/restore-pod.ts';
import type { AdmissionRequest } from '../../../../operator/webhook/admission-review.ts';
import { type AdmissionOptions, admit, type Known, type PassReason } from '../../../../operator/webhook/admit.ts';
import { applyPatch } from '../../../fakes/kube-api/patch.ts';
import { AGENT_MOUNT, PROFILE } from '../../contract/pods.ts';
import { served } from '../../crds/samples.ts';
import { CANDIDATE, candidatePod, knowing, OPTIONS, OWNER, type PlainPod, question, readyCheckpoint } from './pods.ts';

const JSON_PATCH = 'application/json-patch+json';
const CHECKPOINT_NAME = 'metadata.annotations';
const ask = (request: AdmissionRequest, known = knowing(), options: Partial<AdmissionOptions> = {}) =>
  admit(request, known, { ...OPTIONS, ...options });

describe('a candidate whose checkpoint is ready', () => {
  it.each<[string, object, object]>([
    ['as it is', {}, {}],
    ['with containers of its own choice', { 'metadata.annotations': targets('sidecar, main') }, {}],
    ['without labels', { 'metadata.labels': undefined }, {}],
    ['that was restored before', { 'metadata.labels': { 'nvidia.com/snapshot-checkpoint-id': 'old' } }, {}],
    ['in version 7', {}, { 'metadata.annotations': { 'nvidia.com/snapshot-artifact-version': '7' } }],
    ['whose Job is of that version', {}, { 'status.jobName': 'checkpoint-job-ckpt-1' }],
    [
      'of its generation',
      { 'metadata.labels': { 'nvidia.com/dynamo-worker-hash': 'abcd' } },
      { 'metadata.labels': { 'nvidia.com/dynamo-worker-hash': 'abcd' } },
    ],
  ])('is what shaping makes of it: %s', (_, ofPod, ofCheckpoint) => {
    const pod = candidatePod({ ...ofPod });
    const verdict = ask(question(pod), knowing({ read: readyCheckpoint({ ...ofCheckpoint }) }));
    if (verdict.result !== 'shaped') throw new Error(`${verdict.why}: ${verdict.detail}`);
    expect(verdict).toMatchObject({ checkpoint: 'team/qwen3-06b-bf16', checkpointId: 'ckpt' });
    const version = JSON.stringify(ofCheckpoint).includes('"7"') ? '7' : '1';
    const names = JSON.stringify(ofPod).includes('sidecar') ? ['sidecar', 'main'] : ['main'];
    const form = { checkpointId: 'ckpt', version, targets: names, storage: AGENT_MOUNT, seccompProfile: PROFILE };
    const patched = applyPatch(pod, verdict.patch, JSON_PATCH);
    expect(patched).toEqual(restorePod(pod as unknown as PlainPod, form));
    expect(patched).not.toEqual(pod);
  });

  it('is changed where shaping changes it, and nowhere else', () => {
    const verdict = ask(question());
    const paths = verdict.result === 'shaped' ? verdict.patch.map(({ op, path }) => `${op} ${path}`) : [];
    expect(paths.sort()).toEqual([
      'add /metadata/annotations/nvidia.com~1snapshot-artifact-version',
      'add /metadata/annotations/nvidia.com~1snapshot-target-containers',
      'add /metadata/labels/nvidia.com~1snapshot-checkpoint-id',
      'add /metadata/labels/nvidia.com~1snapshot-is-restore-target',
      'add /spec/containers/1/env',
      'add /spec/containers/1/startupProbe',
      'add /spec/containers/1/volumeMounts',
      'add /spec/securityContext',
      'add /spec/volumes',
      'remove /spec/containers/1/args',
      'replace /spec/containers/1/command/0',
    ]);
  });

  it('is asked about once more after others changed it, and stays', () => {
    const first = ask(question());
    const shaped = applyPatch(candidatePod(), first.result === 'shaped' ? first.patch : [], JSON_PATCH);
    expect(ask(question(shaped))).toMatchObject({ result: 'passed', why: 'already-shaped' });
  });

  it('waits as the configuration says', () => {
    const verdict = ask(question(), knowing(), { placeholder: 'sleep', seccompProfile: undefined });
    const pod = applyPatch(
      candidatePod(),
      verdict.result === 'shaped' ? verdict.patch : [],
      JSON_PATCH,
    ) as unknown as PlainPod;
    expect(pod.spec.containers[1]?.command).toEqual(['sleep', 'infinity']);
    expect(pod.spec).not.toHaveProperty('securityContext');
  });
});

function targets(names: string): object {
  return { ...CANDIDATE, 'nvidia.com/snapshot-target-containers': names };
}
const owned = (owner: object) => question(candidatePod({ 'metadata.ownerReferences': [{ ...OWNER, ...owner }] }));
const labelled = (label: string, value: string) => question(candidatePod({ 'metadata.labels': { [label]: value } }));
const annotated = (annotations: object) => question(candidatePod({ [CHECKPOINT_NAME]: annotations }));
const checkpoint = (changes: Readonly<Record<string, unknown>>) => knowing({ read: readyCheckpoint(changes) });

interface Row {
  readonly request?: AdmissionRequest;
  readonly known?: Known;
  readonly options?: Partial<AdmissionOptions>;
}

describe('a pod is let through as it is', () => {
  it.each<[PassReason, string, Row]>([
    ['not-a-pod-creation', '', { request: question(undefined, { operation: 'UPDATE' }) }],
    ['not-a-pod-creation', '', { request: question(undefined, { subResource: 'eviction' }) }],
    [
      'not-a-pod-creation',
      '',
      { request: question(undefined, { resource: { group: 'apps', version: 'v1', resource: 'pods' } }) },
    ],
    [
      'not-a-pod-creation',
      '',
      { request: question(undefined, { resource: { group: '', version: 'v1', resource: 'nodes' } }) },
    ],
    ['disabled', '', { options: { enabled: false } }],
    ['namespace-excluded', '', { options: { namespaces: ['other'] } }],
    ['dry-run', '', { request: question(undefined, { dryRun: true }) }],
    ['not-a-candidate', '', { request: question(candidatePod({ 'metadata.annotations': undefined })) }],
    [
      'not-a-candidate',
      '',
      { request: annotated({ ...CANDIDATE, 'nvidia.com/dynamo-checkpoint-restore-candidate': 'yes' }) },
    ],
    ['not-a-candidate', '', { request: annotated({ ...CANDIDATE, 'nvidia.com/dynamo-checkpoint-name': ' ' }) }],
    [
      'untrusted',
      'no controller made it',
      { request: question(candidatePod({ 'metadata.ownerReferences': undefined })) },
    ],
    ['untrusted', 'no controller made it', { request: owned({ controller: false }) }],
    ['untrusted', 'Job worker-1 made it', { request: owned({ kind: 'Job' }) }],
    [
      'untrusted',
      'the source of a checkpoint',
      { request: labelled('nvidia.com/snapshot-is-checkpoint-source', 'true') },
    ],
    ['not-synced', 'not read yet', { known: knowing({ isSynced: false, checkpoint: () => undefined }) }],
    [
      'checkpoint-missing',
      'no DynamoCheckpoint gone',
      { request: annotated({ ...CANDIDATE, 'nvidia.com/dynamo-checkpoint-name': 'gone' }) },
    ],
    ['checkpoint-missing', 'no DynamoCheckpoint qwen', { request: question(undefined, { namespace: 'another' }) }],
    ['checkpoint-malformed', 'spec.identity.model', { known: checkpoint({ 'spec.identity.model': 7 }) }],
    ['checkpoint-not-ready', 'is Pending', { known: checkpoint({ status: undefined }) }],
    ['checkpoint-not-ready', 'is Pending', { known: checkpoint({ 'status.phase': '' }) }],
    ['checkpoint-not-ready', 'is Creating', { known: checkpoint({ 'status.phase': 'Creating' }) }],
    ['checkpoint-not-ready', 'is Failed', { known: checkpoint({ 'status.phase': 'Failed' }) }],
    [
      'checkpoint-not-ready',
      'is being deleted',
      { known: checkpoint({ 'metadata.deletionTimestamp': '2026-01-01T00:00:00Z' }) },
    ],
    [
      'checkpoint-not-ready',
      'not ready in version 2',
      {
        known: checkpoint({
          'status.jobName': 'checkpoint-job-ckpt-1',
          'metadata.annotations': { 'nvidia.com/snapshot-artifact-version': '2' },
        }),
      },
    ],
    [
      'other-generation',
      'of worker generation new, DynamoCheckpoint qwen3-06b-bf16 of old',
      {
        request: labelled('nvidia.com/dynamo-worker-hash', 'new'),
        known: checkpoint({ 'metadata.labels': { 'nvidia.com/dynamo-worker-hash': 'old' } }),
      },
    ],
    [
      'other-generation',
      'generation unknown',
      { known: checkpoint({ 'metadata.labels': { 'nvidia.com/dynamo-worker-hash': 'old' } }) },
    ],
    [
      'storage-unknown',
      'nobody has a volume',
      { known: knowing({ storage: () => ({ problem: 'nobody has a volume' }) }) },
    ],
    ['conflict', 'names a container twice', { request: annotated(targets('main,main')) }],
    ['conflict', 'target container "other" is not in the pod', { request: annotated(targets('other')) }],
    ['conflict', 'checkpoint id', { known: checkpoint({ 'status.checkpointID': '../up' }) }],
    [
      'conflict',
      'volume snapshot-control is no emptyDir',
      { request: question(candidatePod({ 'spec.volumes': [{ name: 'snapshot-control', hostPath: { path: '/' } }] })) },
    ],
    ['malformed', 'no containers', { request: question({ metadata: { annotations: CANDIDATE } }) }],
    ['malformed', 'no containers', { request: question(null) }],
    ['error', 'the cache broke', { known: knowing({ checkpoint: () => broken() }) }],
    ['error', 'the cache broke', { known: knowing({ storage: () => broken() }) }],
    ['error', '', { request: question(candidatePod({ 'spec.volumes': null })) }],
  ])('%s: %s', (why, detail, { request = question(), known, options }) => {
    const verdict = ask(request, known, options);
    expect(verdict).toMatchObject({ result: 'passed', why, detail: expect.stringContaining(detail) as string });
    const isTold = verdict.result === 'passed' && verdict.about !== undefined;
    expect(isTold).toBe(why === 'conflict');
  });

  it('also where the checkpoint has its name in another namespace only', () => {
    const elsewhere = {
      ...served(candidatePod()),
      metadata: { ...(candidatePod()['metadata'] as object), namespace: 'team' },
    };
    expect(ask(question(elsewhere, { namespace: 'other' }))).toMatchObject({ why: 'checkpoint-missing' });
  });
});

function broken(): never {
  throw new Error('the cache broke');
}
