import type { CertificateFacts } from '../../kube/certificates/certificate.ts';
import { CommandError } from '../failure.ts';
import { type Authorities, type NextAuthorities, nextAuthorities, readAuthorities } from './authority-secret.ts';
import type { EnsureInput, Tries } from './ensure.ts';
import { nextLeaf, readLeaf } from './leaf-secret.ts';
import type { SecretReport } from './report.ts';
import { isoTime, type SecretObject } from './secret.ts';
import { type AuthorityStep, LEAF_ROLES, type LeafRole, type LeafStep, NEW, planTls } from './tls-plan.ts';

export interface TlsWanted {
  readonly authoritySecret: string;
  readonly leafSecrets: Readonly<Record<LeafRole, string>>;
  readonly names: Readonly<Record<LeafRole, string>>;
  readonly certificateDays: number;
  readonly authorityDays: number;
  readonly rotate: 'authority' | 'certificates' | undefined;
}

/**
 * One look at the Secrets of the authority and of both certificates, and what is due. The authority is written first: what it says
 * about the certificates (who is trusted, and until when) holds also where they are not written any more. Throws SecretChanged, CommandError.
 */
export async function ensureTls(wanted: TlsWanted, input: EnsureInput, tries: Tries): Promise<readonly SecretReport[]> {
  const { secrets, nowMs: clock } = input;
  const { authoritySecret, leafSecrets, names } = wanted;
  const secret = await secrets.read(authoritySecret);
  const before = readAuthorities(authoritySecret, secret);
  const [agent, operator] = [await secrets.read(leafSecrets.agent), await secrets.read(leafSecrets.operator)];
  const leaves = {
    ...withRole('agent', readLeaf(leafSecrets.agent, 'agent', agent, before)),
    ...withRole('operator', readLeaf(leafSecrets.operator, 'operator', operator, before)),
  };
  const nowMs = clock();
  const plan = planTls({ authority: before?.holding, leaves }, wishOf(wanted, tries), nowMs);
  const keptLeaves = LEAF_ROLES.filter((role) => plan.leaves[role].kind !== 'issue');
  requirePast(authoritySecret, plan.authority.kind === 'make' ? [] : [before?.current.read, before?.next?.read], nowMs);
  for (const role of keptLeaves) requirePast(leafSecrets[role], [leaves[role]], nowMs);
  const form = { days: wanted.authorityDays, nowMs, newId: NEW };
  const after = await nextAuthorities(before, plan.authority, form);
  const reportTo = reporter(tries);
  await writeAuthority({ name: authoritySecret, secret, before, after, step: plan.authority }, input, reportTo);
  for (const [role, present] of [
    ['agent', agent],
    ['operator', operator],
  ] as const) {
    const place = { role, secret: leafSecrets[role], name: names[role], present };
    await writeLeaf(place, plan.leaves[role], { after, input, nowMs, reportTo });
  }
  return [authoritySecret, ...LEAF_ROLES.map((role) => leafSecrets[role])].flatMap(
    (name) => tries.done.get(name) ?? [],
  );
}

/** Clocks of nodes differ by seconds. More than this, and one of two was wrong. */
const CLOCKS_DIFFER_MS = 3_600_000;

/**
 * A certificate that begins later than now was made by a clock that ran ahead, or this one lags. Nobody here can tell which, and to make
 * everything anew by a clock of 1970 would be worse than to ask: peers refuse what is not valid yet. Throws CommandError.
 */
function requirePast(secret: string, held: readonly (CertificateFacts | undefined)[], nowMs: number): void {
  const early = held.find((one) => one !== undefined && one.notBeforeMs > nowMs + CLOCKS_DIFFER_MS);
  if (early === undefined) return;
  throw new CommandError(
    'refused',
    `Secret ${secret} has a certificate that begins at ${isoTime(early.notBeforeMs)}, and it is ${isoTime(nowMs)} here: one clock was wrong. If it is not this one, delete the Secret and run it again`,
  );
}

function withRole<T>(role: LeafRole, leaf: T | undefined): Partial<Record<LeafRole, T>> {
  return leaf === undefined ? {} : { [role]: leaf };
}

/** What an earlier try of this run did is not asked for again. */
function wishOf({ rotate, leafSecrets, ...wanted }: TlsWanted, { done }: Tries) {
  const isDone = (name: string) => (done.get(name)?.state ?? 'unchanged') !== 'unchanged';
  const asked = rotate === 'certificates' ? LEAF_ROLES.filter((role) => !isDone(leafSecrets[role])) : [];
  return {
    ...wanted,
    rotateAuthority: rotate === 'authority' && !isDone(wanted.authoritySecret),
    renew: new Set(asked),
  };
}

/** Keeps what each Secret came to over all tries: what was done stays said, what comes next is what was seen last. */
function reporter({ done }: Tries) {
  return (report: SecretReport) => {
    const earlier = done.get(report.secret);
    const isNews = earlier === undefined || report.state !== 'unchanged';
    done.set(report.secret, isNews ? report : { ...earlier, due: report.due });
  };
}

interface AuthorityWrite {
  readonly name: string;
  readonly secret: SecretObject | undefined;
  readonly before: Authorities | undefined;
  readonly after: NextAuthorities;
  readonly step: AuthorityStep;
}

async function writeAuthority(
  { name, secret, before, after, step }: AuthorityWrite,
  { secrets }: EnsureInput,
  report: (report: SecretReport) => void,
): Promise<void> {
  const isNoted = before?.holding.issuedUntilMs === step.issuedUntilMs;
  if (step.kind === 'keep' && !step.dropsPrevious && isNoted) {
    if (secret !== undefined) await secrets.label(secret);
  } else await secrets.write(name, secret, after.content);
  const state = before === undefined ? 'made' : step.kind === 'keep' && !step.dropsPrevious ? 'unchanged' : 'rotated';
  report({ secret: name, state, detail: authorityDetail(step), due: step.due });
}

function authorityDetail({ kind, why, dropsPrevious }: AuthorityStep): string {
  switch (kind) {
    case 'make':
      return `a new authority signs (${why})`;
    case 'add-next':
      return `a next authority is trusted from now on (${why})`;
    case 'promote':
      return `the next authority signs from now on (${why}), and the former one is trusted for what it signed`;
    case 'keep':
      if (dropsPrevious) return 'a former authority is trusted no more: all that it signed has run out';
      return why || 'the authority signs';
  }
}

interface LeafPlace {
  readonly role: LeafRole;
  readonly secret: string;
  readonly name: string;
  readonly present: SecretObject | undefined;
}

async function writeLeaf(
  { role, secret, name, present }: LeafPlace,
  step: LeafStep,
  around: {
    readonly after: NextAuthorities;
    readonly input: EnsureInput;
    readonly nowMs: number;
    readonly reportTo: (report: SecretReport) => void;
  },
): Promise<void> {
  const { after, input, nowMs, reportTo } = around;
  const until = `good until ${isoTime(step.notAfterMs)}`;
  const { due } = step;
  if (step.kind === 'keep') {
    if (present !== undefined) await input.secrets.label(present);
    reportTo({ secret, state: 'unchanged', detail: `certificate for ${name}, ${until}`, due });
    return;
  }
  const content = await nextLeaf(present, step, { role, name, nowMs, authorities: after });
  await input.secrets.write(secret, present, content);
  const isFirst = step.kind === 'issue' && step.why === 'there was none';
  const detail =
    step.kind === 'trust' ? step.why : `a new certificate for ${name}, ${until}${isFirst ? '' : ` (${step.why})`}`;
  reportTo({ secret, state: isFirst ? 'made' : 'rotated', detail, due });
}
