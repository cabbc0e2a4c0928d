import { randomUUID } from 'node:crypto';
import { request as open } from 'node:https';
import { text } from 'node:stream/consumers';
import type { Exchange } from './calls.ts';
import { withDefaults } from './defaults.ts';
import { applyPatch } from './patch.ts';
import type { World } from './replies.ts';
import { type Json, type KubeObject, RESOURCES } from './resources.ts';
import { webhookDenied, webhookFailed } from './status.ts';
import { create } from './writes.ts';

const DEFAULT_TIMEOUT_SECONDS = 10;
const CONTROLLER = 'system:serviceaccount:kube-system:replicaset-controller';

/** One webhook of a MutatingWebhookConfiguration, as its manifest has it. */
interface Webhook {
  readonly name: string;
  readonly clientConfig: {
    readonly url?: string;
    readonly service?: { readonly namespace: string; readonly name: string; readonly path?: string };
    /** Base64 of PEM. */
    readonly caBundle?: string;
  };
  readonly rules?: readonly {
    readonly operations: readonly string[];
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
  }[];
  readonly objectSelector?: LabelSelector;
  /** Of a namespace that has the one label `kubernetes.io/metadata.name`. */
  readonly namespaceSelector?: LabelSelector;
  readonly failurePolicy?: 'Fail' | 'Ignore';
  readonly timeoutSeconds?: number;
}

interface LabelSelector {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
    readonly values?: readonly string[];
  }[];
}

/** What a webhook says. */
interface Answer {
  readonly uid?: string;
  readonly allowed: boolean;
  readonly patchType?: string;
  /** Base64 of JSON. */
  readonly patch?: string;
  readonly status?: { readonly message?: string };
}

/** Whether there is anybody to ask about a call; only the creation of pods is asked about. */
export function hasWebhooks({ store }: World, { call }: Exchange): boolean {
  const isPod = call.verb === 'create' && call.apiGroup === '' && call.resource === 'pods' && call.subresource === '';
  return isPod && typeof call.body === 'object' && (store.list('mutatingwebhookconfigurations') ?? []).length > 0;
}

/** Creates a pod that no call asks for. Throws ApiError. */
export async function createThroughWebhooks(world: World, pod: Json): Promise<KubeObject> {
  const { namespace = '' } = pod['metadata'] as { namespace?: string };
  const call = { namespace, user: CONTROLLER, query: new URLSearchParams(), body: pod };
  const request = { resource: RESOURCES.pods, namespace, name: '', subresource: '', text: '', mediaType: '' };
  const body = await mutated(world, call);
  return create(world.store, { ...request, body, isDryRun: false, isEventView: false }).body as KubeObject;
}

/** The call with what the webhooks made of its pod. Throws ApiError where one refuses, or fails and must not. */
export async function admitted(world: World, { call, ...exchange }: Exchange): Promise<Exchange> {
  return { ...exchange, call: { ...call, body: await mutated(world, call) } };
}

/** What asking the webhooks takes of a call. */
type Creation = Pick<Exchange['call'], 'namespace' | 'user' | 'query' | 'body'>;

/** The pod as the webhooks made it, one after the other. */
async function mutated(world: World, call: Creation): Promise<Json> {
  const sent = call.body as Json;
  const metadata: Json = { ...(sent['metadata'] as Json), namespace: call.namespace };
  let pod: Json = withDefaults({ ...sent, metadata, kind: 'Pod', apiVersion: 'v1' } as unknown as KubeObject);
  for (const webhook of chosen(world, call.namespace, metadata)) {
    const answer = await ask(world, webhook, { call, pod }).catch((error: Error) => {
      if (webhook.failurePolicy === 'Ignore') return undefined;
      throw webhookFailed(webhook.name, error.message);
    });
    if (answer?.allowed === false) throw webhookDenied(webhook.name, answer.status?.message ?? '');
    // Of a patch that does not fit, the policy knows nothing: the pod is refused.
    if (answer?.patch !== undefined) pod = patched(webhook, pod, answer.patch);
  }
  return pod;
}

function chosen({ store }: World, namespace: string, metadata: Json): Webhook[] {
  const all = (store.list('mutatingwebhookconfigurations') ?? []).flatMap(
    (configuration) => (configuration['webhooks'] ?? []) as Webhook[],
  );
  const has = (values: readonly string[], value: string) => values.includes('*') || values.includes(value);
  return all.filter(
    ({ rules = [], objectSelector, namespaceSelector }) =>
      rules.some((rule) => has(rule.operations, 'CREATE') && has(rule.apiGroups, '') && has(rule.resources, 'pods')) &&
      isSelected(objectSelector, (metadata['labels'] ?? {}) as Record<string, string>) &&
      isSelected(namespaceSelector, { 'kubernetes.io/metadata.name': namespace }),
  );
}

function isSelected(selector: LabelSelector = {}, labels: Readonly<Record<string, string>>): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector;
  const isEqual = Object.entries(matchLabels).every(([key, value]) => labels[key] === value);
  const meets = matchExpressions.every(({ key, operator, values = [] }) => {
    const value = labels[key];
    if (operator === 'Exists') return value !== undefined;
    if (operator === 'DoesNotExist') return value === undefined;
    return (value !== undefined && values.includes(value)) === (operator === 'In');
  });
  return isEqual && meets;
}

interface Asked {
  readonly call: Creation;
  readonly pod: Json;
}

/** Throws where there is no usable answer: what the failure policy is for. */
async function ask(world: World, webhook: Webhook, { call, pod }: Asked): Promise<Answer> {
  const uid = randomUUID();
  const review = {
    kind: 'AdmissionReview',
    apiVersion: 'admission.k8s.io/v1',
    request: {
      uid,
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      requestKind: { group: '', version: 'v1', kind: 'Pod' },
      requestResource: { group: '', version: 'v1', resource: 'pods' },
      ...{ name: (pod['metadata'] as Json)['name'] ?? '', namespace: call.namespace, operation: 'CREATE' },
      userInfo: { username: call.user, groups: ['system:authenticated'] },
      object: pod,
      oldObject: null,
      dryRun: call.query.get('dryRun') === 'All',
      options: { kind: 'CreateOptions', apiVersion: 'meta.k8s.io/v1' },
    },
  };
  const answer = JSON.parse(await post(world, webhook, review)) as Json & { readonly response?: Answer };
  const { kind, apiVersion, response } = answer;
  if (kind !== review.kind || apiVersion !== review.apiVersion)
    throw new Error(`expected webhook response of ${review.apiVersion}, Kind=AdmissionReview`);
  if (response?.uid !== uid) throw new Error(`expected response.uid="${uid}", got "${response?.uid ?? ''}"`);
  if (response.patch !== undefined && response.patchType !== 'JSONPatch')
    throw new Error(`webhook returned invalid response.patchType of ${response.patchType ?? '""'}`);
  return response;
}

function patched({ name }: Webhook, pod: Json, patch: string): Json {
  try {
    const operations = JSON.parse(Buffer.from(patch, 'base64').toString()) as unknown;
    return applyPatch(pod, operations, 'application/json-patch+json');
  } catch (error) {
    throw webhookFailed(name, `the patch cannot be applied: ${(error as Error).message}`);
  }
}

/** Over TLS only, with a certificate of the authority that the configuration names, for the name that it names. */
async function post({ services }: World, { clientConfig, timeoutSeconds }: Webhook, review: object): Promise<string> {
  const { url, service, caBundle = '' } = clientConfig;
  const seconds = timeoutSeconds ?? DEFAULT_TIMEOUT_SECONDS;
  const name = service === undefined ? '' : `${service.name}.${service.namespace}.svc`;
  const port = service && services.get(`${service.namespace}/${service.name}`);
  if (service !== undefined && port === undefined) throw new Error(`service "${service.name}" not found`);
  const target = new URL(url ?? `https://127.0.0.1:${port}${service?.path ?? '/'}`);
  target.searchParams.set('timeout', `${seconds}s`);
  const options = {
    method: 'POST',
    // Each call is a connection of its own: none goes on with a certificate that would not be trusted any more.
    agent: false,
    ...(caBundle === '' ? {} : { ca: Buffer.from(caBundle, 'base64') }),
    headers: { 'content-type': 'application/json' },
    signal: AbortSignal.timeout(seconds * 1000),
    ...(name === '' ? {} : { servername: name }),
  };
  return new Promise((resolve, reject) => {
    const message = open(target, options, (response) => {
      const status = response.statusCode ?? 0;
      const isGood = status >= 200 && status < 300;
      text(response).then((body) => (isGood ? resolve(body) : reject(new Error(`status ${status}`))), reject);
    });
    message.on('error', reject);
    message.end(JSON.stringify(review));
  });
}
