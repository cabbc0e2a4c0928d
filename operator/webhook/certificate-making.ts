import type { ReadCertificate } from '../../kube/certificates/certificate.ts';
import { issueCertificate, makeAuthority } from '../../kube/certificates/issuing.ts';
import { type CertificateStep, daysFrom } from './certificate-plan.ts';
import { asSigning, type Certificates } from './certificate-secret.ts';

export interface MakingForm {
  /** The DNS name that the API server calls. */
  readonly name: string;
  readonly certificateDays: number;
  readonly authorityDays: number;
  readonly nowMs: number;
}

/** No more of them are kept trusted where nothing is known of what was before. */
const MAX_FORMER = 4;

/** A first authority and what it signs. `former` are trusted until `formerUntilMs`: of a Secret that was lost, replicas show certificates still. */
export async function firstCertificates(
  form: MakingForm,
  { former, formerUntilMs }: { readonly former: readonly ReadCertificate[]; readonly formerUntilMs: number },
): Promise<Certificates> {
  const authority = await newAuthority(form);
  const previous = former
    .filter((one) => one.isAuthority && one.notAfterMs > form.nowMs)
    .sort((a, b) => b.notBeforeMs - a.notBeforeMs)
    .slice(0, MAX_FORMER);
  return { authority, next: undefined, previous, previousUntilMs: formerUntilMs, leaf: await newLeaf(form, authority) };
}

/** The certificates after a step. The key of an authority that signs no more is forgotten. */
export async function nextCertificates(
  known: Certificates,
  { authority: kind, issues, dropsPrevious }: CertificateStep,
  form: MakingForm,
): Promise<Certificates> {
  const kept = dropsPrevious ? [] : known.previous;
  const made = kind === 'make' || kind === 'add-next' ? await newAuthority(form) : undefined;
  const authority = (kind === 'promote' ? known.next : kind === 'make' ? made : undefined) ?? known.authority;
  const next = kind === 'add-next' ? made : kind === 'keep' ? known.next : undefined;
  const isReplaced = authority !== known.authority && known.authority.read.notAfterMs > form.nowMs;
  const keptUntilMs = kept.length > 0 ? known.previousUntilMs : 0;
  return {
    ...{ authority, next },
    previous: isReplaced ? [known.authority.read, ...kept] : kept,
    previousUntilMs: isReplaced ? Math.max(keptUntilMs, known.leaf.read.notAfterMs) : keptUntilMs,
    leaf: issues ? await newLeaf(form, authority) : known.leaf,
  };
}

async function newAuthority({ nowMs, authorityDays }: MakingForm): Promise<Certificates['authority']> {
  return asSigning(await makeAuthority({ nowMs, notAfterMs: daysFrom(nowMs, authorityDays) }));
}

async function newLeaf(
  { name, nowMs, certificateDays }: MakingForm,
  authority: Certificates['authority'],
): Promise<Certificates['leaf']> {
  const notAfterMs = Math.min(daysFrom(nowMs, certificateDays), authority.read.notAfterMs);
  return asSigning(await issueCertificate(authority, { name, side: 'server', nowMs, notAfterMs }));
}
