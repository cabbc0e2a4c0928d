"""torch_tensor.py MEBIBYTES [SECONDS]: a PyTorch process with a random tensor, a counter on the device, and a product that it recomputes."""

import hashlib
import sys

import contract
import torch

size = int(sys.argv[1]) << 20
interval = float(sys.argv[2]) if len(sys.argv) > 2 else 0.05

generator = torch.Generator(device="cuda").manual_seed(7)
tensor = torch.randint(-(2**31), 2**31 - 1, (size // 4,), dtype=torch.int32, device="cuda", generator=generator)
counter = torch.zeros((), dtype=torch.int64, device="cuda")
left = torch.randn((1024, 1024), device="cuda", generator=generator)
right = torch.randn((1024, 1024), device="cuda", generator=generator)
expected = (left @ right).cpu()


def digest():
    seen = hashlib.sha256()
    for part in tensor.split(64 << 20):
        seen.update(part.cpu().numpy())
    return seen.hexdigest()


def step():
    counter.add_(1)
    return {"count": int(counter.item()), "drawn": float(torch.rand((), device="cuda", generator=generator).item())}


def verdict():
    now = digest()
    if now != before:
        return {"check": "the tensor differs", "sha256": now}
    if not torch.equal((left @ right).cpu(), expected):
        return {"check": "the product differs"}
    return {"check": "ok", "sha256": now}


before = digest()
contract.on_check(verdict)
contract.announce(sha256=before, torch=torch.__version__, device=torch.cuda.get_device_name(0))
contract.tick_forever(step, interval)
