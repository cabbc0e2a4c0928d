import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';

/** Why no checkpoint can be made of a worker of this kind. */
export interface Unsupported {
  readonly reason: 'GMSSnapshotDisabled' | 'BackendNotSupported' | 'WorkerKindNotSupported';
  readonly message: string;
}

type WorkerKind = 'headless' | 'multimodal' | 'embedding' | 'diffusion';

/** By the flags of the workers of vLLM and SGLang. docs/checkpoints.md has them. */
const FLAGS: readonly (readonly [WorkerKind, RegExp])[] = [
  ['headless', /^--headless$/],
  ['multimodal', /^--(enable-)?multimodal(-[a-z-]+)?$/],
  ['embedding', /^--(embedding-worker|embedding|is-embedding)$/],
  ['diffusion', /^--([a-z]+-)?diffusion(-worker)?$/],
  ['diffusion', /^--(video-generation-worker|omni)$/],
];
/** Flags whose value says it. */
const VALUES: ReadonlyMap<string, RegExp> = new Map([
  ['--task', /^(embed|embedding|classify|score|reward)$/],
  ['--runner', /^pooling$/],
  ['--convert', /^(embed|classify|reward)$/],
]);
const TRTLLM = /^(dynamo\.trtllm|tensorrt_llm\S*|trtllm-\S+)$/;

/** What of this checkpoint is not supported; undefined where nothing was seen. Only the target container's command and arguments are looked at. */
export function unsupported({ spec }: DynamoCheckpoint): Unsupported | undefined {
  if (spec.gpuMemoryService?.enabled === true)
    return {
      reason: 'GMSSnapshotDisabled',
      message: 'GMS + Snapshot is temporarily disabled: remove spec.gpuMemoryService, and make the checkpoint anew',
    };
  const words = wordsOf(spec.job);
  const program = words.find((word) => TRTLLM.test(word));
  if (spec.identity.backendFramework === 'trtllm' || program !== undefined)
    return {
      reason: 'BackendNotSupported',
      message: `backend trtllm is not supported${program === undefined ? '' : ` (the worker runs ${program})`}: checkpoints are made of vllm and sglang workers`,
    };
  const found = workerKind(words);
  if (found === undefined) return undefined;
  const { kind, flag } = found;
  return {
    reason: 'WorkerKindNotSupported',
    message: `${kind} workers are not supported: the target container has ${flag}`,
  };
}

function workerKind(words: readonly string[]): { readonly kind: WorkerKind; readonly flag: string } | undefined {
  for (const [index, word] of words.entries()) {
    const [name = '', given] = word.split('=', 2);
    if (given?.toLowerCase() === 'false' || given === '0') continue;
    const kind = FLAGS.find(([, pattern]) => pattern.test(name))?.[0];
    if (kind !== undefined) return { kind, flag: word };
    const value = given ?? words[index + 1] ?? '';
    if (VALUES.get(name)?.test(value)) return { kind: 'embedding', flag: `${name} ${value}` };
  }
  return undefined;
}

/** The words of command and arguments, those of a shell's script too. */
function wordsOf({ podTemplateSpec, targetContainerName }: DynamoCheckpoint['spec']['job']): string[] {
  const target = podTemplateSpec.spec.containers.find(({ name }) => name === targetContainerName);
  const texts = [target?.['command'], target?.['args']].flatMap((list) => (Array.isArray(list) ? list : []));
  return texts.flatMap((text) => (typeof text === 'string' ? text.split(/[\s;&|'"()]+/).filter(Boolean) : []));
}
