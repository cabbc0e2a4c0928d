import { type Json, type KubeObject, keyOf, type ResourceName } from './resources.ts';

/** One change of one object. `previous` is absent when the object came, `isDeleted` says that it went. */
export interface Change {
  readonly version: number;
  readonly object: KubeObject;
  readonly previous: KubeObject | undefined;
  readonly isDeleted: boolean;
  /** Watch lines already made of this change, so that each is serialised once for all watches. */
  readonly lines: Map<string, string>;
}

interface Table {
  objects: Map<string, KubeObject>;
  changes: Change[];
  /** Watches and lists from before this version are too old. */
  oldestVersion: number;
  readonly listeners: Set<(change: Change) => void>;
}

/** Where the counter of a fresh cluster stands: above 1, so that a resourceVersion of 1 is too old as on a real one. */
const FIRST_VERSION = 1000;

/** The objects of the cluster, with one counter of versions and a bounded history of changes for each resource. */
export class Store {
  #version = FIRST_VERSION;
  readonly #historyLimit: number;
  readonly #tables = new Map<ResourceName, Table>();
  #compactedAt = FIRST_VERSION;

  constructor(historyLimit: number) {
    this.#historyLimit = historyLimit;
  }

  get version(): number {
    return this.#version;
  }

  oldestVersion(resource: ResourceName): number {
    return this.#table(resource).oldestVersion;
  }

  get(resource: ResourceName, key: string): KubeObject | undefined {
    return this.#table(resource).objects.get(key);
  }

  /** Stores an object under the next version, and tells the watches. */
  write(resource: ResourceName, object: KubeObject): KubeObject {
    const table = this.#table(resource);
    const stored = this.#stamp(object);
    const key = keyOf(object.metadata);
    const previous = table.objects.get(key);
    table.objects.set(key, stored);
    this.#record(table, { object: stored, previous, isDeleted: false });
    return stored;
  }

  /** Takes an object away. Its last state gets the version of the deletion, as a real server does it. */
  remove(resource: ResourceName, key: string): KubeObject | undefined {
    const table = this.#table(resource);
    const previous = table.objects.get(key);
    if (previous === undefined) return undefined;
    table.objects.delete(key);
    const object = this.#stamp(previous);
    this.#record(table, { object, previous, isDeleted: true });
    return object;
  }

  /** All objects in the order of a list, as they were at a version (default: now). Undefined: too old to tell. */
  list(resource: ResourceName, version = this.#version): KubeObject[] | undefined {
    const table = this.#table(resource);
    if (version < table.oldestVersion) return undefined;
    const objects = new Map(table.objects);
    for (let index = table.changes.length - 1; index >= 0; index -= 1) {
      const change = table.changes[index];
      if (change === undefined || change.version <= version) break;
      if (change.previous === undefined) objects.delete(keyOf(change.object.metadata));
      else objects.set(keyOf(change.object.metadata), change.previous);
    }
    const keys = [...objects.keys()].sort((a, b) => (a < b ? -1 : 1));
    return keys.flatMap((key) => objects.get(key) ?? []);
  }

  /** The changes after a version, oldest first. Undefined: too old to tell. */
  changesSince(resource: ResourceName, version: number): readonly Change[] | undefined {
    const { oldestVersion, changes } = this.#table(resource);
    if (version < oldestVersion) return undefined;
    const first = changes.findLastIndex((change) => change.version <= version) + 1;
    return changes.slice(first);
  }

  /** Calls back on each change from now on; the answer ends that. */
  subscribe(resource: ResourceName, listener: (change: Change) => void): () => void {
    const { listeners } = this.#table(resource);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /** Forgets all history: every version handed out so far becomes too old. */
  compact(): void {
    this.#version += 1;
    this.#compactedAt = this.#version;
    for (const table of this.#tables.values()) {
      table.changes = [];
      table.oldestVersion = this.#version;
    }
  }

  #table(resource: ResourceName): Table {
    const known = this.#tables.get(resource);
    if (known !== undefined) return known;
    const table = { objects: new Map(), changes: [], oldestVersion: this.#compactedAt, listeners: new Set<never>() };
    this.#tables.set(resource, table);
    return table;
  }

  #stamp(object: KubeObject): KubeObject {
    this.#version += 1;
    const metadata = { ...object.metadata, resourceVersion: String(this.#version) };
    return { ...(object as Json), metadata } as KubeObject;
  }

  #record(table: Table, change: Omit<Change, 'version' | 'lines'>): void {
    const whole: Change = { ...change, version: this.#version, lines: new Map() };
    table.changes.push(whole);
    // Trimmed in big steps: dropping one at a time would move the whole array on each write.
    if (table.changes.length > this.#historyLimit * 2) {
      const dropped = table.changes.splice(0, table.changes.length - this.#historyLimit);
      table.oldestVersion = dropped.at(-1)?.version ?? table.oldestVersion;
    }
    for (const listener of table.listeners) listener(whole);
    // Kept lines would make the history several times as large; a late watch makes its own.
    whole.lines.clear();
  }
}
