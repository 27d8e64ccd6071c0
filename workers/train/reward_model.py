"""A trained reward model, frozen: it scores an answer with its prompt, and so stands in for what a grader would say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from luthier.dataset.messages import as_messages
from luthier.environments import Episode
from luthier.environments.base import Message
from workers.train.data.padding_free import UnpaddedRows, lay_out, within
from workers.train.data.tokenize import Renderer, Row, Tokens
from workers.train.forward import TOKEN_CAP, last_hidden

HEAD: Final = "score.weight"  # transformers' name of it


def scores(model: PreTrainedModel, head_1D: torch.Tensor, rows: UnpaddedRows) -> torch.Tensor:
    """One number for each sequence, linear in its last hidden state: [S]."""
    return (last_hidden(model, rows) @ head_1D.to(torch.promote_types(head_1D.dtype, torch.float32)).T).squeeze(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A plain model and a head."""

    model: PreTrainedModel
    head_1D: torch.Tensor

    @torch.no_grad()
    def __call__(self, answers: Sequence[Tokens]) -> list[float]:
        """The scores of sequences; more is better, zero means nothing."""
        found: list[float] = []
        for group in within([(tokens,) for tokens in answers], TOKEN_CAP[self.model.device.type]):
            rows = lay_out([tokens for (tokens,) in group], self.model.device)
            found.extend(scores(self.model, self.head_1D, rows).tolist())
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of all that it consists of, for `restored`."""
        state = self.model.state_dict() | {HEAD: self.head_1D}
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """As transformers' model for sequence classification with one label, whose logit is the score."""
        config = type(self.model.config).from_dict(self.model.config.to_dict())
        config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
        classifier = AutoModelForSequenceClassification.from_config(config)
        classifier.base_model.load_state_dict(self.model.base_model.state_dict())
        classifier.load_state_dict({HEAD: self.head_1D}, strict=False)
        classifier.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def restored(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> Scorer:
    """The scorer of which these are the tensors; `model` is used up, and says nothing but their shapes."""
    weights = dict(tensors)
    head_1D = weights.pop(HEAD).to(model.device)
    model.load_state_dict(weights)
    return Scorer(model=model, head_1D=head_1D)


def pair_accuracy(scorer: Scorer, render: Renderer, rows: Sequence[Row]) -> float:
    """The share of preferences whose chosen answer the scorer puts above the rejected one; ties count half."""
    chosen, rejected = (
        scorer([render.pair(row["prompt"], row[side], row.get("tools")) for row in rows])
        for side in ("chosen", "rejected")
    )
    wins = [1.0 if good > bad else 0.5 * (good == bad) for good, bad in zip(chosen, rejected, strict=True)]
    return sum(wins) / len(wins)


class Scored:
    """Episodes whose one answer is scored with its prompt, in the form that the scorer learnt from: as a whole turn, so
    that an answer cut off by the length limit is scored as if it ended there."""

    def __init__(self, scorer: Scorer, render: Renderer) -> None:
        self._scorer, self._render = scorer, render

    def begin(self, row: Row) -> Episode:
        return _ScoredAnswer(self._scorer, self._render, row)

    def rewards(self, episodes: Sequence[Episode]) -> list[float]:
        """The rewards of many of these episodes, in few passes through the model."""
        return self._scorer([episode.said for episode in episodes if isinstance(episode, _ScoredAnswer)])


class _ScoredAnswer:
    def __init__(self, scorer: Scorer, render: Renderer, row: Row) -> None:
        self._scorer, self._render, self._row = scorer, render, row
        self._answer = ""

    @property
    def said(self) -> Tokens:
        """The prompt and the answer to it."""
        prompt, answer = self._row["prompt"], self._answer
        said = answer if isinstance(prompt, str) else as_messages(answer, "assistant")
        return self._render.pair(prompt, said, self._row.get("tools"))

    def respond(self, answer: str) -> Sequence[Message]:
        self._answer = answer
        return ()

    def reward(self) -> float:
        [score] = self._scorer([self.said])
        return score
