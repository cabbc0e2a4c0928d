import { isDeepStrictEqual } from 'node:util';
import { type Json, type KubeObject, type Resource, textOf } from './resources.ts';
import type { Cause } from './status.ts';

const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const NAME_PART = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
/** The words of a real server, which the replay compares. */
const SUBDOMAIN_RULE =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const NAME_RULE =
  "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_RULE =
  "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const ANNOTATIONS_LIMIT_BYTES = 262_144;
const MICRO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$/;

const wrong = (field: string, why: string): Cause => ({ reason: 'FieldValueInvalid', message: why, field });
const badValue = (field: string, value: string, why: string) => wrong(field, `Invalid value: "${value}": ${why}`);
const asMap = (value: unknown) => (value ?? {}) as Json;

/** Why the JSON does not decode into the kind, or undefined. Checks what the fake knows the type of. */
export function undecodable(resource: Resource, object: Json): string | undefined {
  const metadata = asMap(object['metadata']);
  for (const field of ['annotations', 'labels']) {
    const other = Object.values(asMap(metadata[field])).find((value) => typeof value !== 'string');
    if (other !== undefined) {
      return `json: cannot unmarshal ${typeof other} into Go struct field ObjectMeta.metadata.${field} of type string`;
    }
  }
  const spec = asMap(object['spec']);
  const times = resource.kind === 'Lease' ? [spec['acquireTime'], spec['renewTime']] : [];
  if (resource.kind === 'Event') times.push(object['eventTime']);
  const time = times.find((value) => value !== undefined && value !== null && !MICRO_TIME.test(textOf(value)));
  if (time === undefined) return undefined;
  const rest = /:\d\d((\.\d*)?(Z|[+-]\d\d:\d\d))$/.exec(textOf(time))?.[1] ?? textOf(time);
  return `parsing time "${textOf(time)}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "${rest}" as ".000000"`;
}

/** What is wrong with an object about to be stored, whether it is new or takes the place of `previous`. */
export function causesOf(resource: Resource, object: KubeObject, previous?: KubeObject): Cause[] {
  const causes = previous === undefined ? nameCauses(object) : updateCauses(resource, object, previous);
  causes.push(...annotationCauses(object.metadata.annotations ?? {}));
  causes.push(...labelCauses(object.metadata.labels ?? {}));
  if (resource.kind === 'Pod') causes.push(...podCauses(object));
  if (resource.kind === 'Deployment') causes.push(...deploymentCauses(object, previous));
  if (resource.kind === 'Lease') causes.push(...leaseCauses(object));
  if (resource.kind === 'Event') causes.push(...eventCauses(object));
  return causes;
}

function nameCauses({ metadata: { name } }: KubeObject): Cause[] {
  if (name === '') {
    const message = 'Required value: name or generateName is required';
    return [{ reason: 'FieldValueRequired', message, field: 'metadata.name' }];
  }
  return SUBDOMAIN.test(name) ? [] : [badValue('metadata.name', name, SUBDOMAIN_RULE)];
}

function updateCauses(resource: Resource, object: KubeObject, previous: KubeObject): Cause[] {
  const { metadata } = object;
  const causes: Cause[] = [];
  if (metadata.uid !== previous.metadata.uid) causes.push(badValue('metadata.uid', metadata.uid, 'field is immutable'));
  const added = (metadata.finalizers ?? []).filter((name) => previous.metadata.finalizers?.includes(name) !== true);
  if (previous.metadata.deletionTimestamp !== undefined && added.length > 0) {
    const message = `Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{${added.map((name) => `"${name}"`).join(', ')}}`;
    causes.push({ reason: 'FieldValueForbidden', message, field: 'metadata.finalizers' });
  }
  if (resource.kind === 'Pod' && !isDeepStrictEqual(fixedPodSpec(object), fixedPodSpec(previous))) {
    const message =
      'Forbidden: pod updates may not change fields other than `spec.containers[*].image` and a few others';
    causes.push({ reason: 'FieldValueForbidden', message, field: 'spec' });
  }
  if (resource.kind === 'Job' && !isDeepStrictEqual(object.spec?.['template'], previous.spec?.['template'])) {
    causes.push(wrong('spec.template', 'Invalid value: {}: field is immutable'));
  }
  return causes;
}

/** The part of a pod's spec that no update may change. */
function fixedPodSpec({ spec }: KubeObject): Json {
  const withoutImage = (containers: unknown) =>
    ((containers ?? []) as Json[]).map((container) => ({ ...container, image: undefined }));
  const free = { activeDeadlineSeconds: undefined, tolerations: undefined };
  const { containers, initContainers } = asMap(spec);
  return { ...spec, ...free, containers: withoutImage(containers), initContainers: withoutImage(initContainers) };
}

function keyProblem(key: string): string | undefined {
  const parts = key.split('/');
  const name = parts.at(-1) ?? '';
  if (parts.length > 2) {
    return `a valid label key ${NAME_RULE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`;
  }
  if (name.length > 63) return 'name part must be no more than 63 bytes';
  return NAME_PART.test(name) ? undefined : `name part ${NAME_RULE}`;
}

function annotationCauses(annotations: Readonly<Record<string, string>>): Cause[] {
  const causes = Object.keys(annotations).flatMap((key) => {
    const problem = keyProblem(key);
    return problem === undefined ? [] : [badValue('metadata.annotations', key, problem)];
  });
  const sizeBytes = Object.entries(annotations).reduce((sum, entry) => sum + Buffer.byteLength(entry.join('')), 0);
  if (sizeBytes > ANNOTATIONS_LIMIT_BYTES) {
    const message = `Too long: may not be more than ${ANNOTATIONS_LIMIT_BYTES} bytes`;
    causes.push({ reason: 'FieldValueTooLong', message, field: 'metadata.annotations' });
  }
  return causes;
}

function labelCauses(labels: Readonly<Record<string, string>>): Cause[] {
  return Object.entries(labels).flatMap(([key, value]) => {
    const problem = keyProblem(key);
    const isGood = value === '' || (value.length <= 63 && NAME_PART.test(value));
    return [
      ...(problem === undefined ? [] : [badValue('metadata.labels', key, problem)]),
      ...(isGood ? [] : [badValue('metadata.labels', value, LABEL_RULE)]),
    ];
  });
}

function podCauses({ spec, status }: KubeObject): Cause[] {
  const containers = asMap(spec)['containers'];
  const conditions = (asMap(status)['conditions'] ?? []) as Json[];
  return [
    ...(Array.isArray(containers) && containers.length > 0
      ? []
      : [{ reason: 'FieldValueRequired', message: 'Required value', field: 'spec.containers' }]),
    ...conditions.flatMap(({ type }, index) => {
      const problem = keyProblem(String(type));
      return problem === undefined ? [] : [badValue(`status.conditions[${index}].Type`, String(type), problem)];
    }),
  ];
}

/** Its pods must be those that it selects, for ever. */
function deploymentCauses({ spec }: KubeObject, previous?: KubeObject): Cause[] {
  const { selector, template } = asMap(spec) as { selector?: Json; template?: { metadata?: { labels?: Json } } };
  const wanted = Object.entries(asMap(selector?.['matchLabels']));
  const labels = template?.metadata?.labels ?? {};
  if (selector === undefined)
    return [{ reason: 'FieldValueRequired', message: 'Required value', field: 'spec.selector' }];
  if (wanted.some(([key, value]) => labels[key] !== value))
    return [
      wrong(
        'spec.template.metadata.labels',
        `Invalid value: ${JSON.stringify(labels)}: \`selector\` does not match template \`labels\``,
      ),
    ];
  const isMoved = previous !== undefined && !isDeepStrictEqual(selector, previous.spec?.['selector']);
  return isMoved ? [wrong('spec.selector', `Invalid value: ${JSON.stringify(selector)}: field is immutable`)] : [];
}

function leaseCauses({ spec }: KubeObject): Cause[] {
  const durationSeconds = asMap(spec)['leaseDurationSeconds'];
  if (typeof durationSeconds !== 'number' || durationSeconds > 0) return [];
  return [wrong('spec.leaseDurationSeconds', `Invalid value: ${durationSeconds}: must be greater than 0`)];
}

/** An event lies in the namespace of its object; that of an object without one lies in `default`. */
function eventCauses({ metadata, involvedObject }: KubeObject): Cause[] {
  const namespace = textOf(asMap(involvedObject)['namespace']);
  const home = namespace === '' ? 'default' : namespace;
  if (metadata.namespace === home) return [];
  return [badValue('involvedObject.namespace', namespace, 'does not match event.namespace')];
}

/** What events.k8s.io refuses of a new event, and the core group does not. */
export function eventViewCauses({ metadata, eventTime, message, type }: KubeObject): Cause[] {
  const required = { reason: 'FieldValueRequired', message: 'Required value', field: 'eventTime' };
  if (eventTime === undefined || eventTime === null) return [required];
  const prefix = metadata.generateName ?? '';
  const isLong = typeof message === 'string' && message.length > 1024;
  return [
    ...(prefix.endsWith('.') ? [badValue('metadata.generateName', prefix, SUBDOMAIN_RULE)] : []),
    ...(isLong ? [badValue('message', '', 'can have at most 1024 characters')] : []),
    ...(type === 'Normal' || type === 'Warning' ? [] : [badValue('type', '', `has invalid value: ${String(type)}`)]),
  ];
}
