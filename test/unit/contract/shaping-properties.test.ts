import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkpointJob, type PodTemplate } from '../../../contract/checkpoint-job.ts';
import { restoreProblem } from '../../../contract/restore-compatibility.ts';
import { type Placeholder, restorePod } from '../../../contract/restore-pod.ts';
import type { Container, PodSpec } from '../../../kube/objects.ts';
import { AGENT_MOUNT, mainOf, POD_MOUNT, SOURCE, TARGET } from './pods.ts';

/** Fields that nobody here knows. */
const unknown = fc.dictionary(fc.stringMatching(/^x[A-Z][a-z]{1,5}$/), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 });
const name = fc.stringMatching(/^[a-z]{1,6}$/);
const path = name.map((text) => `/data/${text}`);
const probe = fc.record({ httpGet: fc.constant({ path: '/health', port: 8000 }), timeoutSeconds: fc.nat(30) });
const fields = fc.record(
  {
    command: fc.array(name, { minLength: 1, maxLength: 3 }),
    args: fc.array(name, { maxLength: 3 }),
    env: fc.uniqueArray(fc.record({ name, value: fc.string() }), { selector: (one) => one.name }),
    volumeMounts: fc.uniqueArray(fc.record({ name, mountPath: path }), { selector: (one) => one.mountPath }),
    startupProbe: probe,
    livenessProbe: probe,
    readinessProbe: probe,
    resources: fc.constant({ limits: { 'nvidia.com/gpu': '1' } }),
  },
  { requiredKeys: [] },
);
const container = (called: string) =>
  fc.tuple(fields, unknown).map(([known, more]) => ({ ...more, ...known, name: called }));
const map = fc.dictionary(name, name, { maxKeys: 3 });
const pod: fc.Arbitrary<PodTemplate> = fc
  .record({
    metadata: fc.record({ labels: map, annotations: map }, { requiredKeys: [] }),
    main: container('main'),
    side: fc.option(container('side'), { nil: undefined }),
    volumes: fc.uniqueArray(
      fc.tuple(name, unknown).map(([called, more]) => ({ ...more, name: called })),
      {
        selector: (one) => one.name,
      },
    ),
    spec: unknown,
    securityContext: unknown,
    top: unknown,
  })
  .map(({ metadata, main, side, volumes, spec, securityContext, top }) => ({
    ...top,
    metadata: { ...top, ...metadata, name: 'worker' },
    spec: { ...spec, securityContext, volumes, containers: [main, ...(side === undefined ? [] : [side])] } as PodSpec,
  }));

/** Fields that shaping gives a value of its own. */
const ITS_OWN = ['command', 'args', 'env', 'volumeMounts', 'startupProbe', 'livenessProbe', 'readinessProbe'];

function expectKept(before: PodSpec, after: PodSpec): void {
  const { containers: _, volumes = [], securityContext = {}, ...rest } = before;
  expect(after).toMatchObject(rest);
  expect(after.securityContext).toMatchObject(securityContext);
  expect((after.volumes ?? []).slice(0, volumes.length)).toEqual(volumes);
  expect(after.containers.slice(1)).toEqual(before.containers.slice(1));
  const [old, now] = [mainOf(before), mainOf(after)];
  const unchanged = (one: Container) => Object.entries(one).filter(([key]) => !ITS_OWN.includes(key));
  expect(unchanged(now)).toEqual(unchanged(old));
  expect(now.env).toEqual(expect.arrayContaining(old.env ?? []));
  expect(now.volumeMounts).toEqual(expect.arrayContaining(old.volumeMounts ?? []));
}

describe.each([AGENT_MOUNT, POD_MOUNT])('shaping, in mode $accessMode', (storage) => {
  const source = (template: PodTemplate) => {
    const { spec, metadata } = checkpointJob(template, { ...SOURCE, storage }).spec?.template ?? {};
    return { spec: spec ?? expect.fail('no pod'), metadata: metadata ?? {} };
  };
  const target = (template: PodTemplate, placeholder: Placeholder) =>
    restorePod(template, { ...TARGET, storage, placeholder });
  const placeholders = fc.constantFrom<Placeholder>('standby', 'sleep', 'entrypoint');

  it('a source keeps all that nobody knows, and stays as it is when it is made into one again', () => {
    fc.assert(
      fc.property(pod, (template) => {
        const once = source(template);
        expectKept(template.spec, once.spec);
        expect(mainOf(once.spec).command).toEqual(mainOf(template.spec).command);
        expect(once.metadata.labels).toMatchObject(template.metadata?.labels ?? {});
        expect(once.metadata.annotations).toMatchObject(template.metadata?.annotations ?? {});
        expect(source(once)).toEqual(once);
      }),
    );
  });

  it('so does a target, which fits then', () => {
    fc.assert(
      fc.property(pod, placeholders, (template, placeholder) => {
        const once = target(template, placeholder);
        expectKept(template.spec, once.spec);
        const { metadata: _, spec: __, ...top } = template;
        expect(once).toMatchObject(top);
        expect(once.metadata).toMatchObject(template.metadata ?? {});
        expect(mainOf(once.spec).livenessProbe).toEqual(mainOf(template.spec).livenessProbe);
        expect(target(once, placeholder)).toEqual(once);
        expect(restoreProblem(once, { ...TARGET, storage })).toBeUndefined();
      }),
    );
  });

  it('neither changes what it was given', () => {
    fc.assert(
      fc.property(pod, (template) => {
        const before = structuredClone(template);
        source(template);
        target(template, 'standby');
        expect(template).toEqual(before);
      }),
    );
  });
});
