import { z } from 'zod';
import { SnapshotError } from '../errors.ts';

/** As NVML writes the UUID of a whole GPU. MIG instances have `MIG-` in front. */
const GPU_UUID = /^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** Domain, bus, device and function in hexadecimal. NVML writes the domain with eight digits, CUDA and sysfs with four. */
const BUS_ID = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i;
/** More GPUs than any node has; minors 254 and 255 are no GPUs. */
const MAX_GPUS = 254;

export const isGpuUuid = (text: string): boolean => GPU_UUID.test(text);

const gpuUuid = z.string().regex(GPU_UUID, 'is no UUID of a GPU');
const bytes = z.number().int().nonnegative();

const toldGpu = z.object({
  /** Of NVML: in the order of PCI bus ids. */
  index: z.number().int().nonnegative(),
  uuid: gpuUuid,
  name: z.string().min(1).max(128),
  /** Of its device node, whatever that is called. */
  minor: z.number().int().min(0).max(253),
  busId: z.string().regex(BUS_ID, 'is no PCI bus id'),
  memoryBytes: bytes,
  freeBytes: bytes.nullable(),
  /** Null in the next three: the driver did not tell. */
  mig: z.boolean().nullable(),
  mps: z.boolean().nullable(),
  /** `none`, or how it is virtualised, as NVML names it. */
  virtualization: z.string().max(64).nullable(),
});

/** Where NVML does not tell how much is free, all is taken for it: nothing is refused without evidence. */
const nodeGpu = toldGpu.transform((told) => ({ ...told, freeBytes: told.freeBytes ?? told.memoryBytes }));

/** A GPU of this node as the driver describes it. */
export type NodeGpu = Readonly<z.infer<typeof nodeGpu>>;

const answer = z.object({ ok: z.literal(true), gpus: z.array(nodeGpu).max(MAX_GPUS) });

/** Reads the answer of a CUDA worker to `gpus`. Throws INTERNAL where it is none: worker and agent are of one build. */
export function readGpus(parsed: unknown): NodeGpu[] {
  const result = answer.safeParse(parsed);
  if (!result.success)
    throw new SnapshotError(
      'INTERNAL',
      `the list of GPUs of the CUDA worker is not understood: ${z.prettifyError(result.error)}`,
    );
  return result.data.gpus;
}

/** Orders PCI bus ids as the bus does, whichever of the two ways they are written. One that is none comes last. */
export function compareBusIds(a: string, b: string): number {
  const [left, right] = [busNumber(a), busNumber(b)];
  if (left === right) return 0;
  return left < right ? -1 : 1;
}

/** A bus id as one number: domain (up to 32 bits), bus, device, function. */
function busNumber(id: string): number {
  const match = BUS_ID.exec(id);
  if (match === null) return Number.POSITIVE_INFINITY;
  const [domain = 0, bus = 0, device = 0, fn = 0] = match.slice(1).map(hexadecimal);
  return ((domain * 256 + bus) * 32 + device) * 8 + fn;
}

const hexadecimal = (text: string | undefined) => Number.parseInt(text ?? '0', 16);

/** GPUs as people recognise them, for messages. */
export function describeGpus(gpus: readonly Pick<NodeGpu, 'uuid' | 'name' | 'memoryBytes'>[]): string {
  return gpus.map(describeGpu).join(', ') || 'none';
}

export function describeGpu({ uuid, name, memoryBytes }: Pick<NodeGpu, 'uuid' | 'name' | 'memoryBytes'>): string {
  return `${uuid} (${name}, ${mebibytes(memoryBytes)} MiB)`;
}

export const mebibytes = (count: number): number => Math.floor(count / (1 << 20));
