import { randomBytes } from 'node:crypto';
import { idProblem } from '../../contract/ids.ts';
import { DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import { InvalidRequest, type WrongField } from './rpc-errors.ts';
import type { ContainerMessage, StorageMessage } from './rpc-requests.ts';

const MAX_WAIT_SECONDS = 86_400;
const MAX_PAGE = 100;
const DEFAULT_PAGE = 50;
const MAX_PATH_LENGTH = 1_024;

const REQUEST_ID = /^[A-Za-z0-9_.-]{1,63}$/;
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$/;
const CONTAINER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const CLEAN_PATH = /^\/(?!\.{0,2}\/|\.{1,2}$)(?!.*\/\.{0,2}(?:\/|$))[^\0\n]*$/;
const TRACE_ID = /^(?!0{32})[0-9a-f]{32}$/;
const TRACE_PARENT = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/;

/** Reads the fields of one request; what is wrong is gathered, so that the caller hears of all of it at once. */
export interface Fields {
  requestId(field: string, value: string): string;
  checkpointId(field: string, value: string): string;
  /** `whenEmpty`: what an empty one stands for; undefined where it must be given. */
  version(field: string, value: string, whenEmpty?: string): string;
  /** The id of an operation. */
  operation(field: string, value: string): string;
  namespace(field: string, value: string): string;
  container(field: string, value: ContainerMessage | null): ContainerFields;
  /** Empty where it is not set. `instead`: the container whose mounts are meant where none is given. */
  storage(field: string, value: StorageMessage | null, instead?: ContainerFields): StorageFields;
  basePath(field: string, value: string): string;
  waitSeconds(field: string, value: number): number;
  pageSize(value: number): number;
  /** One of an enum's names; numbers are those that this agent does not know. */
  choice<T>(field: string, value: string | number, choices: Readonly<Record<string, T>>): T | undefined;
  traceId(field: string, value: string, traceParent: string): string;
  wrong(field: string, problem: string): void;
  /** Throws REQUEST_INVALID with all that was wrong. */
  done(): void;
}

export interface ContainerFields {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly containerId: string;
}

export interface StorageFields {
  readonly through: ContainerFields;
  readonly basePath: string;
}

const NO_CONTAINER: ContainerFields = { namespace: '', pod: '', container: '', containerId: '' };

export function readFields(): Fields {
  const found: WrongField[] = [];
  const wrong = (field: string, problem: string) => {
    found.push({ field, problem });
  };
  const matching = (field: string, value: string, rule: { readonly pattern: RegExp; readonly says: string }) => {
    if (value === '') wrong(field, 'is required');
    else if (!rule.pattern.test(value)) wrong(field, rule.says);
    return value;
  };
  const basePath = (field: string, value: string) => {
    if (value !== '' && (value.length >= MAX_PATH_LENGTH || !CLEAN_PATH.test(value)))
      wrong(field, `must be an absolute, clean path of less than ${MAX_PATH_LENGTH} characters`);
    return value;
  };
  const id = (field: string, value: string) => {
    const problem = idProblem(value);
    if (problem !== undefined) wrong(field, problem);
    return value;
  };
  const reference = (field: string, value: ContainerMessage | null) => containerFields(wrong, field, value);

  return {
    requestId: (field, value) => matching(field, value, { pattern: REQUEST_ID, says: RULES.requestId }),
    checkpointId: id,
    version: (field, value, whenEmpty) => id(field, value === '' && whenEmpty !== undefined ? whenEmpty : value),
    operation: (field, value) => matching(field, value, { pattern: REQUEST_ID, says: RULES.operation }),
    namespace: (field, value) => (value === '' ? value : matching(field, value, { pattern: NAME, says: RULES.name })),
    container: reference,
    storage: (field, value, instead = NO_CONTAINER) => ({
      through: value?.through ? reference(`${field}.through`, value.through) : instead,
      basePath: basePath(`${field}.base_path`, value?.base_path ?? ''),
    }),
    basePath,
    waitSeconds: (field, value) => {
      if (value > MAX_WAIT_SECONDS) wrong(field, `is ${value}, at most ${MAX_WAIT_SECONDS} (a day) are allowed`);
      return value;
    },
    pageSize: (value) => Math.min(value === 0 ? DEFAULT_PAGE : value, MAX_PAGE),
    choice: (field, value, choices) => {
      if (Object.hasOwn(choices, value)) return choices[value];
      wrong(field, `is ${value}, which this agent does not know`);
      return undefined;
    },
    traceId: (field, value, traceParent) => {
      if (value !== '') return matching(field, value, { pattern: TRACE_ID, says: RULES.traceId });
      const parent = TRACE_PARENT.exec(traceParent)?.[1] ?? '';
      // One that cannot be read is as good as none: so says the W3C.
      return TRACE_ID.test(parent) ? parent : randomBytes(16).toString('hex');
    },
    wrong,
    done: () => {
      if (found.length > 0) throw new InvalidRequest(found);
    },
  };
}

const RULES = {
  requestId: 'must be 1 to 63 of A-Z a-z 0-9 _ . -',
  operation: 'is not the name of an operation',
  name: 'must be at most 253 of A-Z a-z 0-9 _ . -, beginning and ending with a letter or digit',
  containerId: 'must be at most 128 of A-Z a-z 0-9 _ . -, without a scheme such as "containerd://"',
  traceId: 'must be 32 lower-case hexadecimal digits, not all zero',
} as const;

export const DEFAULT_VERSION = DEFAULT_ARTIFACT_VERSION;

function containerFields(
  wrong: (field: string, problem: string) => void,
  field: string,
  value: ContainerMessage | null,
): ContainerFields {
  if (value === null) {
    wrong(field, 'is required');
    return NO_CONTAINER;
  }
  const { namespace, pod, container, container_id: containerId } = value;
  for (const [name, text] of Object.entries({ namespace, pod, container }))
    if (text !== '' && !NAME.test(text)) wrong(`${field}.${name}`, RULES.name);
  if (containerId !== '' && !CONTAINER_ID.test(containerId)) wrong(`${field}.container_id`, RULES.containerId);
  const isNamed = namespace !== '' && pod !== '' && container !== '';
  if (containerId === '' && !isNamed) wrong(field, 'needs container_id, or namespace, pod and container');
  return { namespace, pod, container, containerId };
}
