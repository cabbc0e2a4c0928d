import type { Fault } from './faults.ts';
import { differences, Pairs, type RecordedEvent, type Recording, readRecording } from './recording.ts';
import type { Json } from './resources.ts';
import type { KubeApi } from './server.ts';

/** What a replayed exchange was answered, and where that is not what was recorded. */
export interface Replayed {
  readonly differences: readonly string[];
  readonly body: unknown;
}

/** A recorded object. */
export interface Recorded extends Json {
  readonly metadata: Json & { readonly name: string; readonly resourceVersion: string };
}

/** The headers of an answer that are compared; all others belong to the connection. */
const COMPARED_HEADERS = ['content-type', 'retry-after', 'warning'];

/** Sends recorded requests to the fake server and compares its answers with the recorded ones. */
export class Replay {
  readonly api: KubeApi;
  readonly pairs = new Pairs();

  constructor(api: KubeApi) {
    this.api = api;
  }

  /** Puts a recorded object into the store. What the recording cut stays cut, or as it was before. */
  given(object: Recorded, kind = 'Pod'): void {
    const { name, namespace, resourceVersion } = object.metadata;
    const current = this.api.get(kind === 'Pod' ? 'pods' : 'jobs', `${String(namespace)}/${name}`);
    const { metadata, ...rest } = unfold(current ?? {}, object) as unknown as Recorded;
    const { resourceVersion: _, ...kept } = metadata;
    const stored = this.api.put({ ...rest, kind, metadata: kept });
    this.#know(resourceVersion, stored.metadata.resourceVersion);
  }

  /** Something of another kind changes, and the version is then the recorded one. */
  atVersion(recorded: string): void {
    this.api.put({ kind: 'Lease', metadata: { name: 'elsewhere', namespace: 'elsewhere' }, spec: {} });
    this.#know(recorded, this.api.version);
  }

  #know(recorded: string, actual: string): void {
    const clash = this.pairs.learn('resourceVersion', recorded, actual);
    if (clash !== undefined) throw new Error(`the test prepares what was not recorded: ${clash}`);
  }

  /** Replays one exchange that has one answer. `body` takes the place of a recorded one that was cut. */
  async exchange(
    number: string,
    { body, fault }: { readonly body?: string | undefined; readonly fault?: Fault | undefined } = {},
  ): Promise<Replayed> {
    const recording = readRecording(number);
    if (fault !== undefined) this.api.fault({}, fault, { times: 1 });
    const answer = await this.#send(recording, body);
    const text = await answer.text();
    const sent = this.#text(recording.request.body) ?? '';
    const isJson = answer.headers.get('content-type') === 'application/json';
    const actual: unknown = isJson ? JSON.parse(text) : text;
    return {
      differences: [
        ...this.#head(recording, answer),
        ...differences({ pairs: this.pairs, sent }, recording.response.body, actual),
      ],
      body: actual,
    };
  }

  /**
   * Replays a watch: `during` makes the changes, then the stream is ended. Bookmarks that came by the clock are left out on both sides;
   * those that end the initial events are compared. `isKubelet` leaves out a quirk of the recorded kubelet.
   */
  async watch(
    number: string,
    during: () => unknown = () => undefined,
    { isKubelet = false }: { readonly isKubelet?: boolean } = {},
  ): Promise<Replayed> {
    const recording = readRecording(number);
    const answer = await this.#send(recording);
    await during();
    await new Promise((resolve) => setImmediate(resolve));
    this.api.watches.end();
    const events = (recording.response.events ?? []).map(({ type, object }) => ({ type, object })).filter(isCompared);
    const wanted = isKubelet ? events.filter((event) => !isQuirk(event)).map(withoutQuirk) : events;
    const lines = (await answer.text()).split('\n').filter((line) => line !== '');
    const actual = lines.map((line) => JSON.parse(line) as RecordedEvent).filter(isCompared);
    return {
      differences: [...this.#head(recording, answer), ...differences({ pairs: this.pairs, sent: '' }, wanted, actual)],
      body: actual,
    };
  }

  async #send({ request }: Recording, body?: string): Promise<Response> {
    const { method, path, headers, auth = 'Bearer admin' } = request;
    const authorization = auth.includes('norights') ? 'Bearer norights' : auth;
    const sent = body ?? (typeof request.body === 'string' ? request.body : this.#text(request.body));
    return fetch(`${this.api.url}${this.pairs.translate(path)}`, {
      method,
      headers: { ...headers, ...(auth === 'none' ? {} : { authorization }) },
      ...(sent === undefined ? {} : { body: sent }),
    });
  }

  #text(body: unknown): string | undefined {
    return body === undefined ? undefined : this.pairs.translate(JSON.stringify(body));
  }

  #head({ response }: Recording, answer: Response): string[] {
    const wrong = COMPARED_HEADERS.filter((name) => (response.headers[name] ?? null) !== answer.headers.get(name));
    return [
      ...(response.status === answer.status ? [] : [`status: recorded ${response.status}, got ${answer.status}`]),
      ...wrong.map((name) => `${name}: recorded ${response.headers[name]}, got ${answer.headers.get(name)}`),
    ];
  }
}

const isCompared = ({ type, object }: RecordedEvent) =>
  type !== 'BOOKMARK' || (object['metadata'] as Json)['annotations'] !== undefined;

/** The event without the memory limit that a kubelet shows of itself on cgroup v1, whose coming and going has no cause in the API. */
function withoutQuirk({ type, object }: RecordedEvent): RecordedEvent {
  const { resources: _, ...status } = (object['status'] ?? {}) as Json;
  return { type, object: 'status' in object ? { ...object, status: { '…': 'resources', ...status } } : object };
}

/** Whether the recording itself says that only the kubelet's quirk changed. */
function isQuirk({ object }: RecordedEvent): boolean {
  const { resources, conditions = [], containerStatuses = [] } = (object['status'] ?? {}) as Record<string, Json[]>;
  const isAsBefore = (one: Json) => one['…'] === 'as before';
  const isOld = conditions.length > 0 && conditions.every(isAsBefore) && containerStatuses.every(isAsBefore);
  return resources !== undefined && isOld && object['metadata'] !== undefined;
}

/** Fills in from the object before what a recording cut as equal to it. */
function unfold(before: unknown, recorded: unknown): unknown {
  if (Array.isArray(recorded))
    return recorded.map((item: unknown, index) => unfold(partner(before, item, index), item));
  if (typeof recorded !== 'object' || recorded === null) return recorded;
  const old = (typeof before === 'object' && before !== null ? before : {}) as Json;
  const shown = Object.entries(recorded).map(([key, value]) => [key, unfold(old[key], value)] as const);
  const { '…': cut, ...kept } = Object.fromEntries(shown);
  return cut === undefined ? kept : { ...old, ...kept };
}

/** The element of the list before that is the same thing. */
function partner(before: unknown, item: unknown, index: number): unknown {
  if (!Array.isArray(before)) return undefined;
  const { name, type } = (item ?? {}) as Json;
  const id = name ?? type;
  return id === undefined ? before[index] : (before as Json[]).find((old) => (old['name'] ?? old['type']) === id);
}
