import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { AgentAddress } from '../../contract/agent-api/channel.ts';
import { type AgentClient, openAgentClient } from '../../contract/agent-api/client.ts';
import type { AgentPods } from './agent-pod.ts';

/** `agents` of the configuration: how agents are called. */
interface AgentsConfig {
  readonly port: number;
  /** The name in the agents' certificate. */
  readonly serverName: string;
  /** PEM files; they are read again at each use, so that what was renewed is taken at once. */
  readonly caFile: string;
  readonly certificateFile: string;
  readonly keyFile: string;
}

/** An agent's pod that can be called. */
export interface Callee {
  /** `namespace/name` of the pod. */
  readonly key: string;
  readonly uid: string;
  readonly ip: string;
}

export type CalledClient = Pick<
  AgentClient,
  'listOperations' | 'listCheckpoints' | 'getCheckpoint' | 'deleteCheckpoint' | 'close'
>;

/** Connections to agents, one for each pod. */
export interface Connections {
  /** The client for a pod. Throws where the certificates cannot be read. */
  open(callee: Callee): Promise<CalledClient>;
  /** Closes what was not used for a while. */
  sweep(): void;
  close(): void;
}

interface Connection {
  readonly client: CalledClient;
  /** Address and certificates. */
  readonly made: string;
  usedMs: number;
}

const IDLE_MS = 300_000;

export interface ConnectionParts {
  readonly config: AgentsConfig;
  readonly pods: Pick<AgentPods, 'subscribe'>;
  readonly connect?: (address: AgentAddress) => CalledClient;
  /** Monotonic, in ms. */
  readonly clock?: () => number;
}

/** A connection goes with its pod, with its certificates, and when nobody uses it. */
export function newConnections(parts: ConnectionParts): Connections {
  const { config, pods, connect = openAgentClient, clock = () => performance.now() } = parts;
  const open = new Map<string, Connection>();
  const drop = (uid: string) => {
    open.get(uid)?.client.close();
    open.delete(uid);
  };
  const unsubscribe = pods.subscribe(({ now, before }) => {
    if (before !== undefined && before.meta.uid !== now?.meta.uid) drop(before.meta.uid);
  });
  return {
    open: async ({ uid, ip }) => {
      const tls = await readTls(config);
      const address = `${ip.includes(':') ? `[${ip}]` : ip}:${config.port}`;
      const made = `${address} ${tls.digest}`;
      const there = open.get(uid);
      if (there?.made === made) {
        there.usedMs = clock();
        return there.client;
      }
      drop(uid);
      const { ca, certificate, key } = tls;
      const client = connect({ address, ca, certificate, key, serverName: config.serverName });
      open.set(uid, { client, made, usedMs: clock() });
      return client;
    },
    sweep: () => {
      for (const [uid, { usedMs }] of [...open]) if (clock() - usedMs > IDLE_MS) drop(uid);
    },
    close: () => {
      unsubscribe();
      for (const uid of [...open.keys()]) drop(uid);
    },
  };
}

async function readTls({ caFile, certificateFile, keyFile }: AgentsConfig) {
  const [ca, certificate, key] = await Promise.all([readFile(caFile), readFile(certificateFile), readFile(keyFile)]);
  const digest = createHash('sha256').update(ca).update(certificate).update(key).digest('hex');
  return { ca, certificate, key, digest };
}
