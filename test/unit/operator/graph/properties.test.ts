import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { automaticName } from '../../../../operator/graph/automatic.ts';
import { decide } from '../../../../operator/graph/decide.ts';
import { wishOf } from '../../../../operator/graph/rollout.ts';
import { startOf } from '../../../../operator/graph/start.ts';
import { autoGraph, automaticOf, componentOf, factsOf } from './samples.ts';
import { SHAPING } from './shaping.ts';

const word = fc.stringMatching(/^[a-z]{1,8}$/);
const template = fc.record(
  {
    'extraPodSpec.mainContainer.args': fc.array(word, { maxLength: 3 }),
    'extraPodSpec.mainContainer.env': fc.uniqueArray(fc.record({ name: word, value: word }), {
      selector: ({ name }) => name,
    }),
    'extraPodSpec.nodeSelector': fc.dictionary(word, word, { maxKeys: 2 }),
    'extraPodSpec.mainContainer.unheardOf': fc.jsonValue({ maxDepth: 2 }),
    resources: fc.record({ limits: fc.record({ gpu: fc.nat(8).map(String) }) }),
  },
  { requiredKeys: [] },
);
const phase = fc.constantFrom(undefined, 'Pending', 'Creating', 'Ready', 'Failed');
const policy = fc.constantFrom('Immediate' as const, 'WaitForCheckpoint' as const);
const idOf = (worker: Readonly<Record<string, unknown>>) => automaticName(componentOf(autoGraph(worker))).id;

describe('whatever a service says', () => {
  it('the same input has the same output, and scaling changes neither id nor template', () => {
    fc.assert(
      fc.property(template, fc.nat(9), phase, policy, (worker, replicas, said, startupPolicy) => {
        const look = (count: number) => {
          const component = componentOf(
            autoGraph({ ...worker, replicas: count, 'checkpoint.startupPolicy': startupPolicy }),
          );
          const status = said === undefined ? {} : { phase: said };
          const decision = decide(factsOf(component, [automaticOf(component, status)]));
          const storage = { accessMode: 'agentMount', basePath: '/checkpoints', claim: 'pvc' } as const;
          const wish = wishOf(component, decision.start, SHAPING, storage);
          return { decision, wish, hash: wish.basis, id: automaticName(component).id };
        };
        const [one, again, other] = [look(1), look(1), look(replicas)];
        expect(again).toEqual(one);
        expect([other.id, other.hash]).toEqual([one.id, one.hash]);
        expect(other.wish.replicas).toBe(other.decision.start.kind === 'held' ? 0 : replicas);
      }),
    );
  });

  it('one more argument is another generation, and the order in which maps are written is none', () => {
    fc.assert(
      fc.property(template, word, (worker, extra) => {
        const args = 'extraPodSpec.mainContainer.args';
        const more = { ...worker, [args]: [...(worker[args] ?? []), extra] };
        expect(idOf(more)).not.toBe(idOf(worker));
        const turned = Object.fromEntries(Object.entries(worker).reverse());
        expect(idOf(turned)).toBe(idOf(worker));
      }),
    );
  });

  it('a generation that was started is never held, nor started otherwise', () => {
    const outcome = fc.constantFrom('ready' as const, 'failed' as const, 'none' as const);
    fc.assert(
      fc.property(
        policy,
        outcome,
        fc.constantFrom('cold' as const, 'restored' as const),
        fc.boolean(),
        (says, came, as, isCold) => {
          const { kind } = startOf({
            ...{ policy: says, name: 'c', fallback: isCold ? 'ColdStart' : 'Wait', started: { generation: 'g', as } },
            ready: came === 'ready' ? { id: 'i', version: '1', targets: ['main'] } : undefined,
            failure: came === 'failed' ? { reason: 'R', message: 'm' } : undefined,
          });
          expect(kind).not.toBe('held');
          if (as === 'cold' || says === 'Immediate') expect(kind).toBe('candidate');
          else expect(['restored', 'kept']).toContain(kind);
        },
      ),
    );
  });
});
