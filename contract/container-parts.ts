import { posix } from 'node:path';
import type { Container, EnvVar, PodSpec } from '../kube/objects.ts';
import { ShapingError } from './shaping-error.ts';

/** Whether two absolute paths lead to the same place, however they are written: with slashes too many, `.` or `..`. */
export function samePath(a: string, b: string): boolean {
  const bare = (path: string) => posix.normalize(path).replace(/\/+$/, '');
  return bare(a) === bare(b);
}

/** Sets a variable of a container. Throws ShapingError where the container has it with another value. */
export function withEnv(container: Container, name: string, value: string): Container {
  const { env = [] } = container;
  const present = env.filter((one) => one.name === name);
  const other = present.find((one) => one.value !== value);
  if (other !== undefined)
    throw new ShapingError(
      `container ${container.name} sets ${name} to ${shownValue(other)}; it must be ${value}: remove it, it is added`,
    );
  return present.length > 0 ? container : { ...container, env: [...env, { name, value }] };
}

const shownValue = ({ value, valueFrom }: EnvVar) =>
  valueFrom === undefined ? `"${value ?? ''}"` : 'what a source says';

/** Refuses target containers that the pod does not have. Throws ShapingError. */
export function requireContainers({ containers }: PodSpec, targets: readonly string[]): void {
  const names = containers.map(({ name }) => name);
  const missing = targets.find((target) => !names.includes(target));
  if (missing !== undefined)
    throw new ShapingError(`target container "${missing}" is not in the pod, which has: ${names.join(', ')}`);
}

/** Why no container of a pod can be checkpointed or restored into, whatever else it says; the agent would find out when the worker has loaded. */
export function sharingProblem({ shareProcessNamespace, hostPID, hostUsers }: PodSpec): string | undefined {
  const found = [
    ...(shareProcessNamespace === true ? ['shareProcessNamespace: true'] : []),
    ...(hostPID === true ? ['hostPID: true'] : []),
    ...(hostUsers === false ? ['hostUsers: false'] : []),
  ];
  if (found.length === 0) return undefined;
  return `the pod has ${found.join(' and ')}; a container needs PIDs of its own, and the users of the node: remove it`;
}

/** Throws ShapingError with the sharingProblem. */
export function requireOwnProcesses(spec: PodSpec): void {
  const problem = sharingProblem(spec);
  if (problem !== undefined) throw new ShapingError(problem);
}

/** The same pod with some of its containers changed. */
export function mapTargets(
  spec: PodSpec,
  targets: readonly string[],
  change: (container: Container) => Container,
): PodSpec {
  return { ...spec, containers: spec.containers.map((one) => (targets.includes(one.name) ? change(one) : one)) };
}
