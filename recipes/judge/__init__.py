"""A judge for open answers, served by the vLLM of this project."""

from __future__ import annotations
