"""Serving of a trained model as chat, with the loop, formats and sandbox of training."""

from __future__ import annotations
