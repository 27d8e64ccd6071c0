"""The clock of chat templates, `strftime_now`: it stands still, so that all renderings of a conversation agree.

Targets are found by comparing renderings. A clock that ticks between two of them would change the text before the
answer. So a job has one time for all its texts, and inference has one for each request.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from transformers.utils import chat_template_utils

NAME: Final = "strftime_now"  # the function that transformers gives to chat templates


def shows_time(template: str) -> bool:
    """Return whether a chat template may show the time."""
    return NAME in template


def stop(template: str, moment: datetime) -> None:
    """Make transformers render this template, in this process, as of the given moment, in its own time zone.

    transformers compiles each template once, with an environment of its own, and takes no functions as variables. So
    the function is replaced in the compiled template.
    """
    chat_template_utils._compile_jinja_template(template).globals[NAME] = moment.replace(tzinfo=None).strftime
