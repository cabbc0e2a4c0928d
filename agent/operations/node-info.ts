import { VERSION } from '../../contract/version.ts';
import type { Config } from '../config.ts';
import type { NodeFacts } from './node.ts';
import type { Capability, NodeInfo } from './service.ts';

/** What callers are told of this node: what it is, what it can do, and why not where it cannot. */
export function nodeInfoOf(
  config: Config,
  node: NodeFacts,
  { runtime, cuda }: { readonly runtime: string; readonly cuda: Capability },
): NodeInfo {
  const { accessMode, basePath } = config.storage;
  return {
    node: node.name,
    agentVersion: VERSION,
    bootId: node.bootId,
    arch: node.arch,
    kernel: node.kernel,
    criu: node.criu,
    runtime,
    accessMode,
    basePath,
    capabilities: [
      { name: 'criu', available: true, detail: node.criu },
      { name: 'cgroup-v2', available: node.cgroupVersion === 2, detail: `the node has cgroup v${node.cgroupVersion}` },
      cuda,
    ],
  };
}
