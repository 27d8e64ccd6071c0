"""The reward model: a model with a score head, its pairwise accuracy, and the rewards it gives to rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from luthier.dataset.messages import as_messages
from luthier.environments import Episode
from luthier.environments.base import Message
from workers.train.data.padding_free import UnpaddedRows, lay_out, within
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import TOKEN_CAP, last_hidden
from workers.train.layouts import body_of

HEAD: Final = "score.weight"  # as in transformers' sequence classification
HEAD_FILE: Final = "score.safetensors"


def scores(model: PreTrainedModel, head_1D: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """Return a score for each sequence, linear in its last hidden state: [S]."""
    return (last_hidden(model, rows) @ head_1D.to(torch.promote_types(head_1D.dtype, torch.float32)).T).squeeze(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A frozen reward model: a plain model and its score head [1, D]."""

    model: PreTrainedModel
    head_1D: torch.Tensor

    @torch.no_grad()
    def __call__(self, answers: Sequence[Tokens]) -> list[float]:
        """Return the scores of sequences. Higher is better; only differences have a meaning."""
        found: list[float] = []
        for group in within([(tokens,) for tokens in answers], TOKEN_CAP[self.model.device.type]):
            rows = lay_out([tokens for (tokens,) in group], self.model.device)
            found.extend(scores(self.model, self.head_1D, rows).tolist())
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return copies of all weights, for `restored`."""
        state = self.model.state_dict() | {HEAD: self.head_1D}
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Save as transformers' AutoModelForSequenceClassification with one label, whose logit is the score.

        Where transformers has none for the family, or one with more layers than a score, save the model without its
        head for AutoModel, and the score's weights in a file of their own.
        """
        body = body_of(self.model)
        classifier = self._classifier(tokenizer)
        if classifier is None:
            body.save_pretrained(folder)
            save_file({HEAD: self.head_1D.detach().cpu().contiguous()}, folder / HEAD_FILE)
        else:
            classifier.base_model.load_state_dict(body.state_dict())
            classifier.load_state_dict({HEAD: self.head_1D}, strict=False)
            classifier.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def _classifier(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
        """Return transformers' classifier of the family, if it computes the score and no more."""
        config = type(self.model.config).from_dict(self.model.config.to_dict())
        config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
        if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            return None
        classifier: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        parts = {name for name, _ in classifier.named_parameters()}
        own = {f"{classifier.base_model_prefix}.{name}" for name, _ in body_of(self.model).named_parameters()}
        return classifier if parts == own | {HEAD} else None


def restored(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> Scorer:
    """Return the scorer with these weights. `model` provides the shapes and is overwritten."""
    weights = dict(tensors)
    head_1D = weights.pop(HEAD).to(model.device)
    model.load_state_dict(weights)
    return Scorer(model=model, head_1D=head_1D)


def pair_accuracy(scorer: Scorer, render: Renderer, rows: Sequence[Row]) -> float:
    """Return the share of pairs whose chosen answer scores higher than the rejected one; ties count half."""
    chosen, rejected = (
        scorer([render.pair(row["prompt"], row[side], row.get("tools")) for row in rows])
        for side in ("chosen", "rejected")
    )
    wins = [1.0 if good > bad else 0.5 * (good == bad) for good, bad in zip(chosen, rejected, strict=True)]
    return sum(wins) / len(wins)


class Scored:
    """Single-turn episodes whose reward is the scorer's.

    Prompt and answer are rendered as in the scorer's training, as a complete turn. So an answer that was truncated by
    the length limit is scored as if it ended there.
    """

    def __init__(self, scorer: Scorer, render: Renderer) -> None:
        self._scorer, self._render = scorer, render

    def begin(self, row: Row) -> Episode:
        return _ScoredAnswer(self._scorer, self._render, row)

    def rewards(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the rewards of many episodes, in batches."""
        return self._scorer([episode.rendered for episode in episodes if isinstance(episode, _ScoredAnswer)])


class _ScoredAnswer:
    def __init__(self, scorer: Scorer, render: Renderer, row: Row) -> None:
        self._scorer, self._render, self._row = scorer, render, row
        self._answer = ""

    @property
    def rendered(self) -> Tokens:
        """The tokens of prompt and answer."""
        prompt, text = self._row["prompt"], self._answer
        answer = text if isinstance(prompt, str) else as_messages(text, "assistant")
        return self._render.pair(prompt, answer, self._row.get("tools"))

    def respond(self, answer: str) -> Sequence[Message]:
        self._answer = answer
        return ()

    def reward(self) -> float:
        [score] = self._scorer([self.rendered])
        return score
