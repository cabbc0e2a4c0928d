import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What the stand-in's NVML says of a GPU; `undefined` for what it does not support. */
export interface StandinGpu {
  readonly uuid: string;
  readonly minor: number;
  readonly busId: string;
  readonly bytes: number;
  readonly mig?: boolean | undefined;
  readonly mps?: boolean | undefined;
  /** NVML's number: 0 none, 1 passthrough, 2 vgpu, 3 host-vgpu, 4 host-vsga. */
  readonly virtualization?: number | undefined;
  readonly name: string;
}

/** The Nth GPU of a node as the tests have it, with what is to be different about it. */
export function standinGpu(index: number, different: Partial<StandinGpu> = {}): StandinGpu {
  const hex = index.toString(16).padStart(2, '0');
  return {
    uuid: `GPU-5a4d1f00-0000-4000-8000-0000000000${hex}`,
    minor: index,
    busId: `00000000:${hex}:00.0`,
    bytes: 64 << 20,
    mig: false,
    mps: false,
    virtualization: 0,
    name: 'NVIDIA H200',
    ...different,
  };
}

/** One fault, as faults.h has them: `cuCheckpointProcessLock * error 999 once`. */
type Fault = `${string} ${string} ${string}`;

/** The directory of a stand-in for GPUs (standin.h): what stands in it is what the libraries and the workers go by. */
export class Standin {
  readonly directory: string;
  readonly gpus: readonly StandinGpu[];
  #faults = 0;

  constructor(directory: string, gpus: readonly StandinGpu[]) {
    this.directory = directory;
    this.gpus = gpus;
    for (const name of ['dev', 'faults']) mkdirSync(join(directory, name), { recursive: true });
    this.setGpus(gpus);
    for (const { uuid, minor } of gpus) writeFileSync(join(directory, 'dev', `nvidia${minor}`), `${uuid}\n`);
  }

  /** Changes what the node has; the device nodes stay. */
  setGpus(gpus: readonly StandinGpu[]): void {
    const flag = (value: boolean | number | undefined) => (value === undefined ? '-' : `${Number(value)}`);
    const lines = gpus.map(({ uuid, minor, busId, bytes, mig, mps, virtualization, name }) =>
      [uuid, minor, busId, bytes, flag(mig), flag(mps), flag(virtualization), name].join(' '),
    );
    writeFileSync(join(this.directory, 'gpus'), lines.map((line) => `${line}\n`).join(''));
  }

  /** Sets the version of the driver, or of its API. */
  setVersion(of: 'driver' | 'api', version: string): void {
    writeFileSync(join(this.directory, of), `${version}\n`);
  }

  /** Adds a fault; returns what takes it away again. Faults are made in the order in which they were added. */
  fault(fault: Fault): () => void {
    const file = join(this.directory, 'faults', `${this.#faults++}`.padStart(4, '0'));
    writeFileSync(file, `${fault}\n`);
    return () => rmSync(file, { force: true });
  }

  clearFaults(): void {
    rmSync(join(this.directory, 'faults'), { recursive: true });
    mkdirSync(join(this.directory, 'faults'));
  }
}
