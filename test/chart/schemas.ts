import * as client from '@kubernetes/client-node';
import { Ajv } from 'ajv';
import { MutatingWebhookConfiguration } from 'kubernetes-models/admissionregistration.k8s.io/v1';
import { CustomResourceDefinition } from 'kubernetes-models/apiextensions.k8s.io/v1';
import { DaemonSet, Deployment } from 'kubernetes-models/apps/v1';
import { CronJob, Job } from 'kubernetes-models/batch/v1';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1';
import { ClusterRole, ClusterRoleBinding, Role, RoleBinding } from 'kubernetes-models/rbac.authorization.k8s.io/v1';
import { ConfigMap, PersistentVolumeClaim, Service, ServiceAccount } from 'kubernetes-models/v1';
import type { Rendered } from './render.ts';

/** A class of Kubernetes' client: it knows every key of its objects. */
interface Model {
  getAttributeTypeMap(): readonly { readonly baseName: string; readonly type: string }[];
}

/** Refuses what is missing and what has the wrong type, but no unknown keys. */
const VALIDATORS = {
  ClusterRole,
  ClusterRoleBinding,
  ConfigMap,
  CronJob,
  CustomResourceDefinition,
  DaemonSet,
  Deployment,
  Job,
  MutatingWebhookConfiguration,
  NetworkPolicy,
  PersistentVolumeClaim,
  PodDisruptionBudget,
  Role,
  RoleBinding,
  Service,
  ServiceAccount,
} as const;

const strings = { type: 'object', additionalProperties: { type: 'string' } };
const strict = (properties: object, required: readonly string[] = []) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
});
const custom = (kind: string, spec: object) =>
  strict({ apiVersion: { const: 'monitoring.coreos.com/v1' }, kind: { const: kind }, metadata: {}, spec }, ['spec']);

/** The part of the Prometheus operator's kinds that the chart uses. */
const CUSTOM: Readonly<Record<string, object>> = {
  PodMonitor: custom(
    'PodMonitor',
    strict(
      {
        selector: strict({ matchLabels: strings }),
        namespaceSelector: strict({ matchNames: { type: 'array', items: { type: 'string' } } }),
        podMetricsEndpoints: {
          type: 'array',
          items: strict({
            port: { type: 'string' },
            path: { type: 'string' },
            interval: { type: 'string' },
            scrapeTimeout: { type: 'string' },
            relabelings: {
              type: 'array',
              items: strict({ sourceLabels: { type: 'array' }, targetLabel: { type: 'string' } }),
            },
          }),
        },
      },
      ['selector', 'podMetricsEndpoints'],
    ),
  ),
  PrometheusRule: custom(
    'PrometheusRule',
    strict(
      {
        groups: {
          type: 'array',
          minItems: 1,
          items: strict(
            {
              name: { type: 'string' },
              interval: { type: 'string' },
              rules: {
                type: 'array',
                items: strict(
                  {
                    alert: { type: 'string' },
                    record: { type: 'string' },
                    expr: { type: ['string', 'number'] },
                    for: { type: 'string' },
                    keep_firing_for: { type: 'string' },
                    labels: strings,
                    annotations: strings,
                  },
                  ['expr'],
                ),
              },
            },
            ['name', 'rules'],
          ),
        },
      },
      ['groups'],
    ),
  ),
};

const ajv = new Ajv({ allErrors: true, strict: false });

/** Everything that the API server would not take, or drop in silence, each with its path. */
export function problemsOf(object: Rendered): string[] {
  const where = `${object.kind}/${object.metadata.name}`;
  const { kind } = object;
  if (kind in CUSTOM) {
    ajv.validate(CUSTOM[kind] ?? {}, object);
    return (ajv.errors ?? []).map(({ instancePath, message }) => `${where} ${instancePath}: ${message}`);
  }
  if (!isKnown(kind)) return [`${where}: no schema of this kind is known to the tests`];
  return [...wrongTypes(kind, object), ...unknownKeys(object, `V1${kind}`, '')].map((text) => `${where} ${text}`);
}

const isKnown = (kind: string): kind is keyof typeof VALIDATORS => kind in VALIDATORS;

function wrongTypes(kind: keyof typeof VALIDATORS, object: Rendered): string[] {
  try {
    new VALIDATORS[kind](object as never).validate();
    return [];
  } catch (error) {
    return [String(error)];
  }
}

/** Keys that no version of the type has, by their paths. */
function unknownKeys(value: unknown, type: string, path: string): string[] {
  const [, listed, mapped] = /^(?:Array<(.*)>|\{ \[key: string\]: (.*); \})$/.exec(type) ?? [];
  if (Array.isArray(value)) return value.flatMap((one, index) => unknownKeys(one, listed ?? type, `${path}[${index}]`));
  if (typeof value !== 'object' || value === null) return [];
  const entries = Object.entries(value);
  if (mapped !== undefined) return entries.flatMap(([key, below]) => unknownKeys(below, mapped, `${path}.${key}`));
  const model = (client as unknown as Readonly<Record<string, Model>>)[type];
  if (model === undefined) return [];
  const types = new Map(model.getAttributeTypeMap().map(({ baseName, type: below }) => [baseName, below]));
  return entries.flatMap(([key, below]) => {
    const known = types.get(key);
    return known === undefined ? [`${path}.${key} is no key of ${type}`] : unknownKeys(below, known, `${path}.${key}`);
  });
}
