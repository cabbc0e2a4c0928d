import { describe, expect, it } from 'vitest';
import { type CudaCall, driverError } from '../../../agent/cuda/driver-errors.ts';

const told = (call: CudaCall, name: string) =>
  driverError(call, 'process 1 (python3)', { name, text: 'as told', call: 'cuCheckpointProcess' });

describe('an answer of the driver', () => {
  it.each<[CudaCall, string, string, string]>([
    ['lock', 'CUDA_ERROR_NOT_READY', 'CUDA_BUSY', 'collective'],
    ['restore', 'CUDA_ERROR_INVALID_VALUE', 'CUDA_FAILED', 'NCCL_P2P_DISABLE=1'],
    ['restore', 'CUDA_ERROR_NOT_SUPPORTED', 'CUDA_FAILED', 'NCCL_NVLS_ENABLE=0'],
    ['restore', 'CUDA_ERROR_OUT_OF_MEMORY', 'CUDA_FAILED', 'free the GPU'],
    ['checkpoint', 'CUDA_ERROR_OUT_OF_MEMORY', 'CUDA_FAILED', 'memory limit'],
    ['checkpoint', 'CUDA_ERROR_NOT_SUPPORTED', 'CUDA_FAILED', 'CUDA IPC'],
    ['unlock', 'CUDA_ERROR_ILLEGAL_STATE', 'CUDA_FAILED', 'anything else'],
    ['lock', 'CUDA_ERROR_NOT_PERMITTED', 'CUDA_FAILED', 'privileged'],
    ['restore', 'CUDA_ERROR_SYSTEM_NOT_READY', 'CUDA_FAILED', 'nvidia-smi'],
    ['checkpoint', 'CUDA_ERROR_UNKNOWN', 'CUDA_FAILED', 'dmesg'],
    ['checkpoint', 'CUDA_ERROR_NOT_READY', 'CUDA_FAILED', 'dmesg'],
  ])('to %s, %s, is %s and says what to do: %s', (call, name, code, advice) => {
    const error = told(call, name);
    expect(error).toMatchObject({ failure: 'driver', code });
    expect(error.message).toMatch(`cuCheckpointProcess of process 1 (python3): ${name} (as told): `);
    expect(error.message).toContain(advice);
    expect(error.reasons).toEqual([
      {
        code: name,
        message: `cuCheckpointProcess of process 1 (python3): ${name} (as told)`,
        found: 'as told',
        wanted: '',
        advice: expect.stringMatching(/^[A-Z].*\.$/s),
      },
    ]);
  });
});
