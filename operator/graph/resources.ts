import type { Container } from '../../kube/objects.ts';

type Quantities = Readonly<Record<string, unknown>>;
type Resources = NonNullable<Container['resources']>;

const GPU = 'nvidia.com/gpu';

/**
 * What a service says of resources, as a container says it: `gpu` is the number of GPUs, of the kind that `gpuType` names; what is in
 * `custom` has its own names. All else is taken as it is.
 */
export function containerResources(resources: Quantities | undefined): { resources?: Resources } {
  if (resources === undefined) return {};
  const { requests, limits, ...rest } = resources;
  const found = {
    ...rest,
    ...(requests === undefined ? {} : { requests: quantities(requests as Quantities) }),
    ...(limits === undefined ? {} : { limits: quantities(limits as Quantities) }),
  };
  return { resources: found as Resources };
}

function quantities({ gpu, gpuType, custom, ...rest }: Quantities): Quantities {
  const kind = typeof gpuType === 'string' && gpuType !== '' ? gpuType : GPU;
  return { ...rest, ...(gpu === undefined ? {} : { [kind]: gpu }), ...(custom as Quantities | undefined) };
}
