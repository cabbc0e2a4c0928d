import { describe, expect, it } from 'vitest';
import { frameworkOf, serviceRefusal } from '../../../../operator/graph/support.ts';
import { autoGraph, componentOf } from './samples.ts';

const framework = (worker: Readonly<Record<string, unknown>>, more: Readonly<Record<string, unknown>> = {}) =>
  frameworkOf(componentOf(autoGraph(worker, more)));
const IMAGE = 'extraPodSpec.mainContainer.image';
const COMMAND = 'extraPodSpec.mainContainer.command';
const ARGS = 'extraPodSpec.mainContainer.args';

describe('the backend framework of a worker', () => {
  it.each([
    ['the object', { [IMAGE]: 'x' }, { 'spec.backendFramework': 'sglang' }, 'sglang'],
    ['the object, against all else', { [IMAGE]: 'vllm' }, { 'spec.backendFramework': 'sglang' }, 'sglang'],
    ['the image', { [IMAGE]: 'registry.example.com/dynamo/vllm-placeholder:1.0.0' }, {}, 'vllm'],
    ['the image, not the registry', { [IMAGE]: 'vllm.example.com/sglang:1' }, {}, 'sglang'],
    ['the module', { [IMAGE]: 'sglang:1', [COMMAND]: ['python3', '-m', 'dynamo.vllm'] }, {}, 'vllm'],
    ['the module in a shell', { [IMAGE]: 'x', [ARGS]: ['exec python3 -m dynamo.sglang --a'] }, {}, 'sglang'],
    ['a word of the command', { [IMAGE]: 'x', [COMMAND]: ['vllm', 'serve'] }, {}, 'vllm'],
    ['the image, not the name of a model', { [IMAGE]: 'vllm:1', [ARGS]: ['--model', 'org/sglang-x'] }, {}, 'vllm'],
  ])('is told by %s', (_, worker, more, found) => expect(framework(worker, more)).toEqual({ framework: found }));

  it.each([
    ['nothing', { [IMAGE]: 'worker:1' }, {}, 'neither command nor image'],
    ['two', { [IMAGE]: 'vllm-sglang:1' }, {}, 'vllm or sglang'],
    ['trtllm in the object', {}, { 'spec.backendFramework': 'trtllm' }, 'trtllm'],
    ['trtllm in the image', { [IMAGE]: 'tensorrtllm-runtime:1' }, {}, 'trtllm'],
  ])('is refused where it is %s', (_, worker, more, message) => {
    const refused = { reason: 'BackendNotSupported', message: expect.stringContaining(message) };
    expect(framework(worker, more)).toEqual(refused);
  });
});

describe('a service that can have no checkpoint', () => {
  it.each([
    ['gpuMemoryService', { 'gpuMemoryService.enabled': true }, 'GMSSnapshotDisabled'],
    ['failover', { 'failover.enabled': true }, 'GMSSnapshotDisabled'],
    ['a frontend', { componentType: 'frontend' }, 'WorkerKindNotSupported'],
    ['multimodal', { subComponentType: 'multimodal-encoder' }, 'WorkerKindNotSupported'],
    ['embedding', { subComponentType: 'embedding' }, 'WorkerKindNotSupported'],
    ['several nodes', { 'multinode.nodeCount': 2 }, 'WorkerKindNotSupported'],
  ])('is told so: %s', (_, worker, reason) => {
    const refusal = serviceRefusal(componentOf(autoGraph(worker)));
    expect(refusal?.reason).toBe(reason);
    if (reason === 'GMSSnapshotDisabled') expect(refusal?.message).toMatch(/^GMS \+ Snapshot is temporarily disabled/);
  });

  it.each([{}, { 'failover.enabled': false }, { subComponentType: 'decode' }, { 'multinode.nodeCount': 1 }])(
    'is none of them: %j',
    (worker) => expect(serviceRefusal(componentOf(autoGraph(worker)))).toBeUndefined(),
  );
});
