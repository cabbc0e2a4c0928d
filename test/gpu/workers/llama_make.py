"""llama_make.py DIRECTORY: a model of the shape of an 8 B-parameter Llama with seeded random weights in bf16, about 15 GiB."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(8)
torch.set_default_dtype(torch.bfloat16)
shape = LlamaConfig(
    hidden_size=4096,
    num_hidden_layers=32,
    intermediate_size=14336,
    vocab_size=128256,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=4096,
)
with torch.device("cuda"):
    model = LlamaForCausalLM(shape)
model.save_pretrained(sys.argv[1], safe_serialization=True)
