"""For the API reference: what docstrings here are written with and Markdown does not know."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):`~?([^`]+)`")
"""A role with the name that it holds."""


EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
"""The head of one example, in the singular as torchmetrics has it."""
SHARED = re.compile(r"^( +)(\w+), (\w+): (.*)$", re.MULTILINE)
"""Two arguments that are told about at once."""


class Roles(Extension):
    """Names in roles become code, an example is set as one, and every argument has a line of its own."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of an object that was just read, if it has one."""
        if obj.docstring is not None:
            text = ROLE.sub(r"`\1`", obj.docstring.value)
            text = EXAMPLE.sub(r"\1Examples:", text)
            obj.docstring.value = SHARED.sub(r"\1\2: \4\n\1\3: \4", text)
