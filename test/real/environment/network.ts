import { randomInt } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { host } from './host.ts';

/** A bridge and a private subnet that belong to one cluster. */
export interface PodNetwork {
  readonly bridge: string;
  /** Address of this machine on the bridge, reachable from every pod. */
  readonly gateway: string;
  remove(): Promise<void>;
}

/** Where distributions put the CNI plugins. */
export function cniPluginDirectory(): string {
  const found = ['/usr/lib/cni', '/opt/cni/bin'].find((directory) => existsSync(join(directory, 'host-local')));
  if (!found) throw new Error("the CNI plugins are not installed: run 'make setup'");
  return found;
}

/**
 * Takes a subnet that no other cluster and no route of this machine uses: the bridge is named after it, and making an
 * interface of a name that exists fails.
 */
async function claimSubnet(): Promise<{ bridge: string; prefix: string }> {
  const routes = await host(['ip', '-4', 'route', 'show', 'table', 'all']);
  for (let attempt = 0; attempt < 50; attempt++) {
    const [second, third] = [randomInt(64, 128), randomInt(0, 256)];
    const prefix = `10.${second}.${third}`;
    if (routes.includes(`${prefix}.`)) continue;
    const bridge = `snap-${second}-${third}`;
    try {
      await host(['ip', 'link', 'add', 'name', bridge, 'type', 'bridge']);
      return { bridge, prefix };
    } catch (error) {
      if (!String(error).includes('File exists')) throw error;
    }
  }
  throw new Error('no free subnet found for a test cluster');
}

/** Sets up the pod network of a cluster: a bridge, addresses from a subnet of its own, no masquerading. */
export async function makePodNetwork(directory: string): Promise<PodNetwork> {
  const { bridge, prefix } = await claimSubnet();
  const gateway = `${prefix}.1`;
  await mkdir(join(directory, 'cni'), { recursive: true });
  const bridgePlugin = {
    type: 'bridge',
    bridge,
    isGateway: true,
    ipMasq: false,
    ipam: {
      type: 'host-local',
      dataDir: join(directory, 'addresses'),
      ranges: [[{ subnet: `${prefix}.0/24`, gateway }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
  };
  const list = { cniVersion: '0.4.0', name: bridge, plugins: [bridgePlugin, { type: 'loopback' }] };
  await writeFile(join(directory, 'cni/10-pods.conflist'), JSON.stringify(list, null, 2));
  await host(['ip', 'address', 'add', `${gateway}/24`, 'dev', bridge]);
  await host(['ip', 'link', 'set', bridge, 'up']);
  return {
    bridge,
    gateway,
    remove: async () => {
      if (existsSync(`/sys/class/net/${bridge}`)) await host(['ip', 'link', 'delete', bridge]);
    },
  };
}
