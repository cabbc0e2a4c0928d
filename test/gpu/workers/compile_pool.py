"""A PyTorch process that compiled something and whose compile workers are still there, as they are unless they are shut down."""

import contract
import torch

net = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.GELU()) for _ in range(8)]).cuda()
forward = torch.compile(net, mode="reduce-overhead")
data = torch.randn(64, 512, device="cuda")
with torch.no_grad():
    for _ in range(3):
        forward(data)
torch.cuda.synchronize()
contract.on_check(lambda: {"check": "ok"})
contract.announce()


def step():
    with torch.no_grad():
        forward(data)


contract.tick_forever(step, 0.1)
