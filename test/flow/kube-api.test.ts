import { beforeEach, describe, expect, it } from 'vitest';
import { readRecording, recordedNumbers } from '../fakes/kube-api/recording.ts';
import type { Recorded } from '../fakes/kube-api/replay.ts';
import { alive, bodyOf, eventsOf, ofLine, pod, useReplay } from '../fakes/kube-api/replaying.ts';
import { type Json, tooManyRequests } from '../fakes/kube-api/server.ts';

/** Jobs and what a kubelet writes have a test of their own. */
const { stage, expectReplay, expectWatch, given } = useReplay((number) => !/^06|^110|^111[12]/.test(number));

function givenWebPods(): void {
  given([...['0102', '0103', '0104'].flatMap((page) => bodyOf(page).items), pod('other-1', '4156', { app: 'other' })]);
}
const givenWeb6 = () => given([pod('web-6', '4164')]);

describe('a list', () => {
  it('is paged, selected and dated', async () => {
    givenWebPods();
    await expectReplay('0102 0103 0104 0105 0106 0107 0108 0109 0110 0111 0112 0113 0114', {
      '0103': givenWeb6,
      '0110': () => stage.replay.atVersion('4166'),
    });
  });

  it.each(['0428', '0429', '0430', '0431', '0432', '0433', '0442'])('is refused: %s', (number) => expectReplay(number));

  it('of a namespace that is not there is empty', async () => {
    stage.replay.atVersion('3030');
    await expectReplay('0412');
  });
});

describe('a watch', () => {
  beforeEach(() => {
    givenWebPods();
    givenWeb6();
    stage.replay.atVersion('4193');
  });

  it('follows a patch that takes a label away', () => expectReplay('0204'));

  it.each(['0202', '0203'])('shows what enters, changes in and leaves its selection: %s', (number) =>
    expectWatch(number, () => given(eventsOf('0203'))),
  );

  it.each(['0205', '0206', '0208', '0209', '0210', '0216', '0217', '0218'])(
    'begins with what is there: %s',
    async (number) => {
      given(eventsOf('0203'));
      stage.replay.atVersion('4200');
      await expectWatch(number);
    },
  );

  it.each(['0215', '0219'])('tells what came since its version: %s', async (number) => {
    given(eventsOf('0203'));
    await expectWatch(number);
  });

  it('from a version of the future is silent until it has come', async () => {
    await expectWatch('0211', () => given(eventsOf('0203')));
    for (const [ahead, version] of ['3683', '3684', '3685', '3686', '3687'].entries()) {
      stage.replay.pairs.learn('resourceVersion', version, String(Number(stage.replay.api.version) + ahead + 1));
    }
    const annotations = eventsOf('0221').map(({ metadata }) => metadata['annotations'] as Json);
    await expectWatch('0221', () => {
      for (const _ of [1, 2, 3])
        stage.replay.api.patch('pods', 'demo/web-1', { metadata: { annotations: { i: `${Math.random()}` } } });
      for (const [index, name] of ['web-4', 'web-5'].entries()) {
        stage.replay.api.patch('pods', `demo/${name}`, { metadata: { annotations: annotations[index] } });
      }
    });
  });

  it.each(['0207', '0212', '0213', '0214'])('is refused before it begins: %s', (number) => expectReplay(number));
});

describe('after a compaction', () => {
  beforeEach(() => {
    given(['1196 web-6', '1199 web-3', '1204 web-1', '1207 web-4', '1210 web-5', '1319 web-2'].map(ofLine));
    stage.replay.atVersion('2947');
    for (const object of eventsOf('0312').filter(({ metadata }) => metadata.resourceVersion > '2')) given([object]);
  });
  const compact = () => {
    stage.replay.atVersion('2963');
    stage.replay.api.compact();
    stage.replay.atVersion('2970');
  };

  it('lists and pages of before are too old, and a page can go on inconsistently', async () => {
    await expectReplay('0301');
    compact();
    await expectReplay('0307 0308 0313 0314 0315 0317 0318', { '0317': () => stage.replay.atVersion('3000') });
  });

  it('watches from before get an ERROR event with 200, unless they ask for all that is there', async () => {
    compact();
    for (const number of ['0306', '0311', '0312', '0316']) await expectWatch(number);
  });

  it('the message names the oldest version that is left', async () => {
    stage.replay.atVersion('2023');
    stage.replay.api.compact();
    await expectWatch('0305');
  });
});

describe('who calls', () => {
  it.each(['0402', '0403', '0404', '0405', '0406', '0407', '0408', '0409'])(
    'is refused without a right: %s',
    (number) => {
      stage.replay.api.setRoles([{ rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] }]);
      return expectReplay(number);
    },
  );

  it.each(['0449', '0450'])('is throttled in plain text: %s', (number) => expectReplay(number, {}, tooManyRequests(1)));
});

describe('a call that is wrong', () => {
  beforeEach(() => {
    given([alive('0114', { name: 'web-1' })]);
    const { metadata, spec } = readRecording('0418').request.body as { metadata: Recorded['metadata']; spec: Json };
    given([{ metadata: { ...metadata, resourceVersion: 'newer' }, spec }], 'Lease');
  });

  const numbers = recordedNumbers().filter((number) => number >= '0410' && number <= '0443');
  it.each(numbers.filter((number) => number !== '0412'))('is answered as recorded: %s', (number) =>
    expectReplay(number),
  );
});

describe('patches', () => {
  const kubeletWrites = () => given([bodyOf('0502')]);
  const terminate = () => stage.replay.api.delete('pods', 'demo/p-1', { gracePeriodSeconds: 5 });

  it('change, refuse and leave alone', async () => {
    const { spec } = pod('p-1', '');
    given([{ ...alive('0501', { annotations: undefined }), spec }]);
    await expectReplay('0501 0502 0503 0504 0505 0506 0507 0508 0509 0510 0511 0512 0513 0514', {
      '0502': kubeletWrites,
    });
    await expectReplay('0515 0516 0517 0518 0519 0520 0521 0522 0523 0524 0525 0526 0527 0528 0529 0530');
    await expectReplay('0531 0532 0539 0542 0543', { '0542': terminate });
  });

  it('of conditions merge by type, and replace all in a merge patch', async () => {
    const measured = (number: string, status: string) => () => {
      const object = bodyOf(number);
      const conditions = (object['status'] as { conditions: Json[] }).conditions;
      const before = conditions.map((one) => (one['type'] === 'example.com/measured' ? { ...one, status } : one));
      const metadata = { ...object.metadata, resourceVersion: `before ${number}` };
      given([{ ...object, metadata, status: { ...(object['status'] as Json), conditions: before } }]);
    };
    given([bodyOf('1203')]);
    await expectReplay('1203 1204 1205 1206 1207 1208 1209 1210 1211 1212 1214', {
      '1205': measured('1205', 'True'),
      '1206': measured('1206', 'False'),
      '1208': measured('1208', 'True'),
    });
  });
});

describe('leases', () => {
  it('live as recorded', () =>
    expectWatch('0701', () =>
      expectReplay(
        recordedNumbers()
          .filter((number) => number.startsWith('07') && number !== '0701')
          .join(' '),
      ),
    ));
});

describe('events', () => {
  it('are made in both groups', () =>
    expectReplay('0801 0802 0803 0804 0805 0806 0807 0808 0809 0810 0811 0812 0813 0814 0815'));

  it('are listed by what they are about', async () => {
    const [view, core] = bodyOf('0816').items as [Recorded, Recorded];
    given(
      [{ ...core, metadata: { ...core.metadata, name: 'web-1.zzzzz', resourceVersion: '2000' } }, core, view],
      'Event',
    );
    await expectReplay('0816');
  });
});

describe('pods', () => {
  it.each(['0101', '1202'])('are made with their defaults: %s', (number) => expectReplay(number));

  it('end with grace, by force, without a node, or when their last finalizer goes', async () => {
    given(['1114', '1116', '1118'].map((number) => alive(number)));
    await expectReplay('1114');
    const { deletionTimestamp = '' } = stage.replay.api.get('pods', 'demo/grace')?.metadata ?? {};
    expect(Date.parse(deletionTimestamp)).toBeGreaterThan(Date.now() + 5_000);
    await expectReplay('1115 1116 1117 1118');
    const held = bodyOf('1119');
    given([{ ...held, metadata: { ...held.metadata, finalizers: ['example.com/hold'] } }]);
    await expectReplay('1119');
    expect(stage.replay.api.get('pods', 'demo/final')).toBeUndefined();
  });
});
