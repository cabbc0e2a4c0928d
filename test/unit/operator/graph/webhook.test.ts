import { describe, expect, it } from 'vitest';
import { decide } from '../../../../operator/graph/decide.ts';
import { wishOf } from '../../../../operator/graph/rollout.ts';
import { admit, type Known } from '../../../../operator/webhook/admit.ts';
import { applyPatch } from '../../../fakes/kube-api/patch.ts';
import { OPTIONS, question } from '../webhook/pods.ts';
import { autoGraph, automaticOf, componentOf, factsOf } from './samples.ts';
import { SHAPING } from './shaping.ts';

/* The two ways in which a worker comes to be restored, of two rooms that know nothing of each other, lead to one and the same pod. */

const STORAGE = { accessMode: 'agentMount', basePath: '/checkpoints', claim: 'snapshot-pvc' } as const;
const WAIT = { 'checkpoint.startupPolicy': 'WaitForCheckpoint' };

function templateOf(worker: Readonly<Record<string, unknown>>, phase: string) {
  const component = componentOf(autoGraph(worker));
  const made = decide(factsOf(component)).make;
  const checkpoint = automaticOf(component, { phase }, { 'metadata.labels': made?.metadata['labels'] });
  const { start } = decide(factsOf(component, [checkpoint]));
  const { template } = wishOf(component, start, SHAPING, STORAGE);
  return { checkpoint, start: start.kind, template: template ?? { metadata: {}, spec: { containers: [] } } };
}

/** As the controllers of Kubernetes make it. */
function podOf({ metadata, spec }: ReturnType<typeof templateOf>['template']) {
  const ownerReferences = [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'r', uid: 'r', controller: true }];
  return { metadata: { ...metadata, generateName: 'worker-', ownerReferences }, spec };
}

/** A webhook that finds this one under every name. */
const knowing = (object: ReturnType<typeof automaticOf>): Known => ({
  isSynced: true,
  checkpoint: () => ({ result: 'read', object }),
  storage: () => ({ source: STORAGE }),
});

describe('a candidate of an automatic checkpoint', () => {
  const options = { ...OPTIONS, seccompProfile: SHAPING.seccompProfile, placeholder: SHAPING.placeholder };

  it('is made by the webhook what WaitForCheckpoint makes of it by itself', () => {
    const candidate = templateOf({}, 'Ready');
    const restored = templateOf(WAIT, 'Ready');
    expect([candidate.start, restored.start]).toEqual(['candidate', 'restored']);
    const pod = podOf(candidate.template);
    const known = knowing(candidate.checkpoint);
    const verdict = admit(question(pod), known, options);
    if (verdict.result !== 'shaped') throw new Error(`${verdict.why}: ${verdict.detail}`);
    const patched = applyPatch(pod, verdict.patch, 'application/json-patch+json');
    expect(patched['spec']).toEqual(restored.template.spec);
    expect(patched['metadata']).toMatchObject({ labels: restored.template.metadata.labels });
  });

  it('is let through while the checkpoint is in the making, and where the checkpoint is of another generation', () => {
    const { template, checkpoint } = templateOf({}, 'Creating');
    const known = knowing(checkpoint);
    expect(admit(question(podOf(template)), known, options)).toMatchObject({ why: 'checkpoint-not-ready' });
    const other = templateOf({ 'extraPodSpec.mainContainer.image': 'vllm:2' }, 'Ready');
    expect(admit(question(podOf(other.template)), known, options)).toMatchObject({ why: 'other-generation' });
  });
});
