import { describe, expect, it } from 'vitest';
import { decide } from '../../../../operator/checkpoint/decide.ts';
import { unsupported } from '../../../../operator/checkpoint/support.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { facts, pending, STORAGE } from './samples.ts';

const main = { name: 'main', image: 'worker' };
const withContainers = (...containers: Json[]) =>
  pending({ spec: (spec) => ({ ...spec, job: { podTemplateSpec: { spec: { containers } } } }) });
const worker = (...args: string[]) => withContainers({ ...main, command: ['python3', '-m', 'dynamo.vllm'], args });

describe('what is not supported', () => {
  it('is the GPU memory service', () => {
    const asking = pending({ spec: (spec) => ({ ...spec, gpuMemoryService: { enabled: true } }) });
    expect(unsupported(asking)).toMatchObject({
      reason: 'GMSSnapshotDisabled',
      message: expect.stringMatching(/^GMS \+ Snapshot is temporarily disabled/),
    });
    const off = pending({ spec: (spec) => ({ ...spec, gpuMemoryService: { enabled: false } }) });
    expect(unsupported(off)).toBeUndefined();
  });

  it('is TensorRT-LLM, as the backend or as the program', () => {
    const backend = pending({ spec: (spec) => ({ ...spec, identity: { model: 'm', backendFramework: 'trtllm' } }) });
    expect(unsupported(backend)?.reason).toBe('BackendNotSupported');
    const program = withContainers({ ...main, command: ['sh', '-c', 'exec python3 -m dynamo.trtllm --model x'] });
    expect(unsupported(program)).toMatchObject({
      ...{ reason: 'BackendNotSupported', message: expect.stringContaining('dynamo.trtllm') },
    });
  });

  it.each([
    ['headless', ['--headless']],
    ['multimodal', ['--multimodal-worker']],
    ['multimodal', ['--multimodal-encode-worker']],
    ['multimodal', ['--enable-multimodal']],
    ['embedding', ['--embedding-worker']],
    ['embedding', ['--is-embedding']],
    ['embedding', ['--task', 'embed']],
    ['embedding', ['--task=embedding']],
    ['embedding', ['--runner', 'pooling']],
    ['diffusion', ['--diffusion-worker']],
    ['diffusion', ['--image-diffusion-worker']],
    ['diffusion', ['--video-generation-worker']],
    ['headless', ['--model', 'x', '--headless=true']],
  ])('is a %s worker, by %j', (kind, args) => {
    expect(unsupported(worker(...args))).toEqual({
      reason: 'WorkerKindNotSupported',
      message: expect.stringMatching(new RegExp(`^${kind} workers are not supported: the target container has --`)),
    });
  });

  it.each([
    [['--model', 'x']],
    [['--headless=false']],
    [['--task', 'generate']],
    [['--model', 'my-headless']],
    [['constructor', '__proto__', 'toString=x']],
    [[]],
  ])('is nothing of %j', (args) => {
    expect(unsupported(worker(...args))).toBeUndefined();
  });

  it('is seen in the script of a shell, and not in other containers', () => {
    const script = withContainers({ ...main, command: ['bash', '-c', 'sleep 1; vllm serve x --headless && true'] });
    expect(unsupported(script)?.reason).toBe('WorkerKindNotSupported');
    expect(unsupported(withContainers(main, { name: 'side', args: ['--headless'] }))).toBeUndefined();
  });

  it('gets no Job', () => {
    expect(decide(worker('--headless'), facts({ storage: STORAGE }))).toMatchObject({
      ...{ do: 'fail', reason: 'WorkerKindNotSupported' },
    });
  });
});
