import { type Json, qualifiedKind, qualifiedPlural, type Resource } from './resources.ts';

/** One entry of `details.causes`. */
export interface Cause {
  readonly reason: string;
  readonly message: string;
  readonly field: string;
}

/** An answer that is not the asked object: a Status, or plain text where a real server sends that. */
export class ApiError extends Error {
  readonly code: number;
  readonly body: Json | string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: number, body: Json | string, headers: Readonly<Record<string, string>> = {}) {
    super(typeof body === 'string' ? body.trim() : String(body['message']));
    this.code = code;
    this.body = body;
    this.headers = headers;
  }
}

const NOT_ACCEPTABLE =
  '406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch';

/** The Status object of a failure. `reason` and `details` are left out where a real server leaves them out. */
export function statusBody(code: number, message: string, more: { reason?: string; details?: Json } = {}): Json {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, ...more, code };
}

const failure = (code: number, message: string, reason: string, details?: Json) =>
  new ApiError(code, statusBody(code, message, { reason, ...(details === undefined ? {} : { details }) }));

const namesOf = (resource: Resource, name: string, kind: string): Json => ({
  ...(name === '' ? {} : { name }),
  ...(resource.group === '' ? {} : { group: resource.group }),
  kind,
});

export const badRequest = (message: string) => failure(400, message, 'BadRequest');
export const unauthorized = () => failure(401, 'Unauthorized', 'Unauthorized');
export const notFound = (resource: Resource, name: string) =>
  failure(
    404,
    `${qualifiedPlural(resource)} "${name}" not found`,
    'NotFound',
    namesOf(resource, name, resource.plural),
  );
export const namespaceNotFound = (name: string) =>
  failure(404, `namespaces "${name}" not found`, 'NotFound', { name, kind: 'namespaces' });
export const unknownPath = () => new ApiError(404, '404 page not found\n');
export const unknownResource = () => failure(404, 'the server could not find the requested resource', 'NotFound', {});
export const methodNotAllowed = () =>
  failure(405, 'the server does not allow this method on the requested resource', 'MethodNotAllowed', {});
export const unsupportedPatchType = () => failure(415, '415: Unsupported Media Type', 'UnsupportedMediaType', {});
export const unsupportedBodyType = () =>
  failure(
    415,
    'the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf',
    'UnsupportedMediaType',
  );
export const notAcceptable = () => failure(406, NOT_ACCEPTABLE, 'NotAcceptable', {});
export const tooLarge = (limitBytes: number) =>
  failure(413, `Request entity too large: limit is ${limitBytes}`, 'RequestEntityTooLarge');
export const alreadyExists = (resource: Resource, name: string) =>
  failure(
    409,
    `${qualifiedPlural(resource)} "${name}" already exists`,
    'AlreadyExists',
    namesOf(resource, name, resource.plural),
  );
export const rejectedJsonPatch = () =>
  failure(422, 'the server rejected our request due to an error in our request', 'Invalid', {});

/** A write that lost against another. The details name the plural resource. */
export const conflict = (
  resource: Resource,
  name: string,
  why = 'the object has been modified; please apply your changes to the latest version and try again',
) =>
  failure(
    409,
    `Operation cannot be fulfilled on ${qualifiedPlural(resource)} "${name}": ${why}`,
    'Conflict',
    namesOf(resource, name, resource.plural),
  );

/** A precondition of a DELETE that does not hold. Its details name the kind, not the plural resource. */
export const preconditionFailed = (resource: Resource, name: string, why: string) =>
  failure(
    409,
    `Operation cannot be fulfilled on ${qualifiedKind(resource)} "${name}": ${why}`,
    'Conflict',
    namesOf(resource, name, resource.kind),
  );

/** 422 with one cause for each field that is wrong. */
export function invalid(resource: Resource, name: string, causes: readonly Cause[]): ApiError {
  const texts = causes.map(({ field, message }) => `${field}: ${message}`);
  // The message says once what the causes say twice.
  const once = [...new Set(texts)];
  const list = once.length === 1 ? once[0] : `[${once.join(', ')}]`;
  const details = { ...namesOf(resource, name, resource.kind), causes };
  return failure(422, `${qualifiedKind(resource)} "${name}" is invalid: ${list}`, 'Invalid', details);
}

/** 422 about the options of a request: their group is meta.k8s.io and they have no name. */
export function invalidOptions(kind: string, cause: Cause): ApiError {
  const message = `${kind}.meta.k8s.io "" is invalid: ${cause.field}: ${cause.message}`;
  return failure(422, message, 'Invalid', { group: 'meta.k8s.io', kind, causes: [cause] });
}

/** What a patch gets whose result does not decode: 422 without kind and name. */
export function undecodablePatch(patched: unknown, why: string): ApiError {
  const message = `Invalid value: ${JSON.stringify(JSON.stringify(patched))}: ${why}`;
  const causes = [{ reason: 'FieldValueInvalid', message, field: 'patch' }];
  return failure(422, ` "" is invalid: patch: ${message}`, 'Invalid', { causes });
}

/** 410, as a list, a continue token or (in an ERROR event) a watch gets it. */
export const expired = (message: string) => failure(410, message, 'Expired');

/** 504 for a list that asks for a resourceVersion of the future. */
export function versionTooLarge(asked: number, current: number): ApiError {
  const cause = { reason: 'ResourceVersionTooLarge', message: 'Too large resource version' };
  const details = { causes: [cause], retryAfterSeconds: 1 };
  const message = `Timeout: Too large resource version: ${asked}, current: ${current}`;
  return new ApiError(504, statusBody(504, message, { reason: 'Timeout', details }), { 'retry-after': '1' });
}

/** 403 with the wording of the RBAC authorizer. */
export function forbidden(call: ForbiddenCall): ApiError {
  const { user, verb, apiGroup: group, resource, subresource, namespace, name } = call;
  const full = subresource === '' ? resource : `${resource}/${subresource}`;
  const where = namespace === '' ? 'at the cluster scope' : `in the namespace "${namespace}"`;
  const whole = group === '' ? resource : `${resource}.${group}`;
  const what = name === '' ? whole : `${whole} "${name}"`;
  const asked = `cannot ${verb} resource "${full}" in API group "${group}" ${where}`;
  const details = { ...(name === '' ? {} : { name }), ...(group === '' ? {} : { group }), kind: resource };
  return failure(403, `${what} is forbidden: User "${user}" ${asked}`, 'Forbidden', details);
}

/** What a refusal of RBAC names of a call. */
interface ForbiddenCall {
  readonly user: string;
  readonly verb: string;
  readonly apiGroup: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
}

/** What the creator of an object gets where a webhook says no. */
export function webhookDenied(name: string, message: string): ApiError {
  const why = message === '' ? 'denied the request without explanation' : `denied the request: ${message}`;
  return new ApiError(400, statusBody(400, `admission webhook "${name}" ${why}`));
}

/** What the creator of an object gets where a webhook gives no usable answer, and its policy is Fail. */
export function webhookFailed(name: string, why: string): ApiError {
  const message = `Internal error occurred: failed calling webhook "${name}": failed to call webhook: ${why}`;
  return new ApiError(
    500,
    statusBody(500, message, { reason: 'InternalError', details: { causes: [{ message: why }] } }),
  );
}
