"""A PyTorch process that copies from one GPU into the other: that turns on peer access between them."""

import contract
import torch

here = torch.full((64 << 20,), 1.0, device="cuda:0")
there = here.to("cuda:1")
torch.cuda.synchronize()
contract.on_check(lambda: {"check": "ok" if float(there[1].item()) == 1.0 else "the copy differs"})
contract.announce(peer=torch.cuda.can_device_access_peer(0, 1))


def step():
    there[:16] = here[:16].to("cuda:1")
    torch.cuda.synchronize()


contract.tick_forever(step, 0.1)
