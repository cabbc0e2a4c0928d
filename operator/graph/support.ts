import type { Container } from '../../kube/objects.ts';
import { type Component, isWorker, MAIN, writtenTemplate } from './component.ts';

export type Framework = 'vllm' | 'sglang' | 'trtllm';

/** Why no checkpoint is made or restored. */
export interface Refusal {
  readonly reason: 'GMSSnapshotDisabled' | 'BackendNotSupported' | 'WorkerKindNotSupported' | 'InvalidService';
  readonly message: string;
}

/** Parts of a command, or of an image's name, that only one of them has. */
const MARKS: Readonly<Record<Framework, RegExp>> = {
  vllm: /(^|[^a-z])vllm([^a-z]|$)/,
  sglang: /(^|[^a-z])sglang([^a-z]|$)/,
  trtllm: /(^|[^a-z])(trtllm|trt-llm|tensorrt-?llm)([^a-z]|$)/,
};
const SPECIAL_KINDS = /multimodal|embedding|diffusion/i;

/** Why a service can have no checkpoint of whatever kind, or undefined. */
export function serviceRefusal(component: Component): Refusal | undefined {
  const { name, service } = component;
  const disabled = 'GMS + Snapshot is temporarily disabled';
  if (service.gpuMemoryService?.enabled === true)
    return { reason: 'GMSSnapshotDisabled', message: `${disabled}: service ${name} enables gpuMemoryService` };
  if (service.failover?.enabled === true)
    return { reason: 'GMSSnapshotDisabled', message: `${disabled}: service ${name} enables failover, which needs it` };
  const { componentType = '', subComponentType = '' } = service;
  if (!isWorker(component))
    return kindRefusal(`service ${name} is of type ${componentType}; only workers have checkpoints`);
  const special = [componentType, subComponentType].find((type) => SPECIAL_KINDS.test(type));
  if (special !== undefined) return kindRefusal(`service ${name} is a ${special} worker, which has no checkpoints yet`);
  const nodes = (service['multinode'] as { readonly nodeCount?: number } | undefined)?.nodeCount ?? 1;
  return nodes > 1 ? kindRefusal(`service ${name} is on ${nodes} nodes; a checkpoint is of one pod`) : undefined;
}

const kindRefusal = (message: string): Refusal => ({ reason: 'WorkerKindNotSupported', message });

/** What serves the model: as the object says, else by the module of the command, the image's name, and any word of the command. Throws ShapingError. */
export function frameworkOf(component: Component): { readonly framework: Framework } | Refusal {
  const { graph, name } = component;
  const { backendFramework } = graph.spec;
  if (backendFramework !== undefined) return supported(name, backendFramework);
  const main = writtenTemplate(component).spec.containers.find((one) => one.name === MAIN);
  const texts = [modulesOf(commandOf(main)), imageName(main), commandOf(main)];
  const found = texts.map(marked).find((names) => names.length > 0) ?? [];
  const [first, second] = found;
  if (first === undefined || second !== undefined) {
    const why = first === undefined ? 'neither command nor image name it' : `it could be ${found.join(' or ')}`;
    const message = `the backend framework of service ${name} is not known: ${why}. Set spec.backendFramework`;
    return { reason: 'BackendNotSupported', message };
  }
  return supported(name, first);
}

function supported(name: string, framework: Framework): { readonly framework: Framework } | Refusal {
  if (framework !== 'trtllm') return { framework };
  return { reason: 'BackendNotSupported', message: `service ${name} is of trtllm, which has no checkpoints yet` };
}

const marked = (text: string) =>
  (Object.keys(MARKS) as Framework[]).filter((framework) => MARKS[framework].test(text.toLowerCase()));

const commandOf = ({ command = [], args = [] }: Partial<Container> = {}) => [...command, ...args].join(' ');

/** The modules of Dynamo that a command starts: surer than any word in it, which may be of the model's name. */
const modulesOf = (command: string) => (command.match(/\bdynamo\.\w+/g) ?? []).join(' ');

/** Without the registry, which may be called anything. */
function imageName({ image = '' }: Partial<Container> = {}): string {
  return image.split('/').at(-1) ?? '';
}
