"""Make the tiny English encoder that the tests fine-tune: `python tests/models/make_tiny_encoder.py CHITCHAT_JSON OUT`.

CHITCHAT_JSON is `dataset.json` of the PyPI package chitchat-dataset==0.9.0 (MIT licence). The result is a
1.0M-parameter BERT with an uncased 2,048-piece WordPiece, in bfloat16: it knows how frequent words are and a
little of what stands beside them (held-out masked perplexity 590 by frequencies alone, 315 at the end). Takes about
200 CPU-seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

WINDOW, BATCH, STEPS, PEAK_LR, MASK = 64, 16, 1200, 2e-3, 0.25
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, CLS, SEP, MASK_ID = 0, 2, 3, 4


def conversations(path: Path) -> list[str]:
    """Each human conversation as one text, a line for each turn."""
    return [
        "\n".join(" ".join(m["text"].strip() for m in turn) for turn in conversation["messages"] if turn)
        for conversation in json.loads(path.read_text()).values()
    ]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    pieces.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=2048, special_tokens=SPECIAL, show_progress=False)
    )
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )


def make_model(vocab_size: int) -> BertForMaskedLM:
    torch.manual_seed(0)
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=128,
            initializer_range=0.06,  # wide enough for a narrow model to leave the plateau of word frequencies
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def masked(ids_BT: torch.Tensor, generator: torch.Generator, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's 80/10/10: what the model sees, and the labels."""
    chosen = (torch.rand(ids_BT.shape, generator=generator) < MASK) & (ids_BT >= len(SPECIAL))
    way = torch.rand(ids_BT.shape, generator=generator)
    seen = ids_BT.where(~(chosen & (way < 0.8)), torch.tensor(MASK_ID))
    anything = torch.randint(vocab_size, ids_BT.shape, generator=generator)
    return seen.where(~(chosen & (way >= 0.9)), anything), ids_BT.where(chosen, torch.tensor(-100))


def train(model: BertForMaskedLM, ids: torch.Tensor) -> None:
    content = WINDOW - 2
    windows = ids[: len(ids) // content * content].view(-1, content)
    edge = torch.ones(len(windows), 1, dtype=ids.dtype)
    windows_NT = torch.cat([CLS * edge, windows, SEP * edge], dim=1)
    held_out, windows_NT = windows_NT[:32], windows_NT[32:]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(windows_NT), generator=generator)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LR, total_steps=STEPS, pct_start=0.1)
    vocab_size = model.config.vocab_size
    for step in range(STEPS):
        batch = windows_NT[order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)]]
        seen, labels = masked(batch, generator, vocab_size)
        loss = model(input_ids=seen, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 60 == 59:
            with torch.no_grad():
                seen, labels = masked(held_out, torch.Generator().manual_seed(1), vocab_size)
                found = model(input_ids=seen, labels=labels).loss.exp()
            print(f"step {step + 1}/{STEPS}  loss {loss.item():.3f}  held-out {found.item():.1f}", flush=True)


def main(source: Path, out: Path) -> None:
    torch.set_num_threads(1)
    texts = conversations(source)
    tokenizer = make_tokenizer(texts)
    model = make_model(len(tokenizer))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    ids = tokenizer("\n".join(texts), add_special_tokens=False, verbose=False)["input_ids"]
    train(model, torch.tensor(ids))
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
