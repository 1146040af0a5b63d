"""An LLM judge for open answers: OpenAI-compatible servers, a verdict of a fixed form, or none."""

from __future__ import annotations
