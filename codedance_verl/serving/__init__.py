"""A trained model behind a chat: the loop, formats and sandbox of training, asked by people and programs."""

from __future__ import annotations
