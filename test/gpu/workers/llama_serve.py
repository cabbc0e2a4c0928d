"""llama_serve.py MODEL_DIRECTORY KV_GIB: an inference worker: loads the model, compiles it, captures CUDA graphs, and generates greedily.

Each token is a line with its number: a run that was interrupted must go on with the tokens of one that was not.
"""

import sys
import time

started = time.time()
import contract  # noqa: E402
import torch  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402

imported = time.time()
model = LlamaForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).to("cuda").eval()
torch.cuda.synchronize()
loaded = time.time()

# What an engine reserves for the KV cache: as large as the memory allows, and empty at first.
cache = torch.zeros(int(float(sys.argv[2]) * 2**30), dtype=torch.uint8, device="cuda")
forward = torch.compile(model.forward, mode="reduce-overhead")
prompt = torch.randint(0, 128_000, (1, 128), generator=torch.Generator().manual_seed(0)).cuda()


def next_token(window):
    return int(forward(window).logits[0, -1].argmax().item())


with torch.no_grad():
    for _ in range(3):
        next_token(prompt)
torch.cuda.synchronize()
captured = time.time()

from torch._inductor.async_compile import shutdown_compile_workers  # noqa: E402

shutdown_compile_workers()

window = prompt
first = None


def step():
    global window, first
    token = next_token(window)
    window = torch.cat([window[:, 1:], torch.tensor([[token]], device="cuda")], 1)
    first = first or time.time()
    return {"token": token}


def verdict():
    # Piece by piece: counting needs several times the memory that is counted.
    is_empty = not any(bool(piece.any().item()) for piece in cache.split(2**28))
    return {"check": "ok" if is_empty else "the KV cache is not empty any more"}


with torch.no_grad():
    contract.on_check(verdict)
    contract.say(**{"tick": 0, "at": time.time(), **step()})
    contract.announce(
        started=started,
        imports=imported - started,
        load=loaded - imported,
        compile=captured - loaded,
        first=first - captured,
        firstTokenAt=first,
    )
    contract.tick_forever(step, 0.02)
