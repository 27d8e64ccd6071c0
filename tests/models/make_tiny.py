"""Make the tiny English chat model that the tests fine-tune: `python tests/models/make_tiny.py CHITCHAT_JSON OUT_DIR`.

CHITCHAT_JSON is `dataset.json` of the PyPI package chitchat-dataset==0.9.0 (MIT licence). The result is a
1.9M-parameter Llama (multi-head attention, so that heads can still be shared) with a 4,096-token byte-level BPE and
a ChatML template, in bfloat16. Takes about 400 CPU-seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WINDOW, BATCH, STEPS, PEAK_LR = 128, 16, 640, 4e-3
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def conversations(path: Path) -> Iterator[str]:
    """Each human conversation, rendered as alternating user and assistant turns in ChatML."""
    for conversation in json.loads(path.read_text()).values():
        turns = [" ".join(m["text"].strip() for m in turn) for turn in conversation["messages"] if turn]
        roles = ("user", "assistant")
        yield "".join(f"<|im_start|>{roles[i % 2]}\n{text}<|im_end|>\n" for i, text in enumerate(turns))


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=512
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(vocab_size: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def train(model: LlamaForCausalLM, ids: torch.Tensor) -> None:
    windows_NT = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
    held_out, windows_NT = windows_NT[:32], windows_NT[32:]
    order = torch.randperm(len(windows_NT), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LR, total_steps=STEPS, pct_start=0.05)
    for step in range(STEPS):
        batch = windows_NT[order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)]]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 40 == 39:
            with torch.no_grad():
                perplexity = model(input_ids=held_out, labels=held_out).loss.exp()
            print(
                f"step {step + 1}/{STEPS}  loss {loss.item():.3f}  held-out perplexity {perplexity.item():.1f}",
                flush=True,
            )


def main(source: Path, out: Path) -> None:
    torch.set_num_threads(1)
    texts = list(conversations(source))
    tokenizer = make_tokenizer(texts)
    model = make_model(len(tokenizer))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, torch.tensor(tokenizer("<|endoftext|>".join(texts))["input_ids"]))
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
