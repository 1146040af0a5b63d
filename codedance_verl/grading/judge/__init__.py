"""Judge of open answers: a language model behind OpenAI-compatible servers, with a verdict of a fixed form, or none."""

from __future__ import annotations
