"""Which base models can read the rows of a job, and why the others cannot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from luthier.errors import IllegalDesign
from luthier.models.base_model import LEAST_CONTEXT, BaseModelEntry


def unfit(entries: Sequence[BaseModelEntry], *, chats: bool, tools: bool = False) -> dict[str, str]:
    """Return the reason for each base model, by name, that cannot read the rows. `chats`: the rows are conversations;
    `tools`: they use tools."""
    found = {entry.name: _fault(entry, chats=chats, tools=tools) for entry in entries}
    return {name: why for name, why in found.items() if why is not None}


def _fault(entry: BaseModelEntry, *, chats: bool, tools: bool) -> str | None:
    facts = entry.facts
    if facts.context < LEAST_CONTEXT:
        return f"it has a context of {facts.context} tokens, and a job reads at least {LEAST_CONTEXT}"
    if chats and facts.chat_fault is not None:
        return f"{facts.chat_fault}, and the rows are conversations"
    if chats and not facts.chat_template:
        return "it has no chat template, and the rows are conversations"
    if tools and not facts.tools:
        return "its chat template does not render tools, which the rows use"
    return None


def usable(
    entries: Sequence[BaseModelEntry], left_out: Mapping[str, str], requested: Collection[str], *, pinned: bool
) -> list[BaseModelEntry]:
    """Return the base models that are not left out.

    `requested` are the names in the request; `pinned`: they are in its pin. Raises IllegalDesign, with the reasons, if
    one of them is left out, or if none is left.
    """
    left = [entry for entry in entries if entry.name not in left_out]
    refused = [name for name in requested if name in left_out] or ([] if left else list(left_out))
    if refused:
        reasons = "; ".join(f"{name}: {left_out[name]}" for name in sorted(refused))
        others = ", ".join(entry.name for entry in left) or "none"
        raise IllegalDesign(
            f"The job cannot use the base model{'s' if len(refused) > 1 else ''} {reasons}. Registered base models "
            f"that can read the rows: {others}.",
            param="search.pin.model" if pinned and requested else "model",
        )
    return left


def note(left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line for the event log of the job; none if all base models can read the rows."""
    if not left_out:
        return ()
    return (f"Base models left out: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}.",)
