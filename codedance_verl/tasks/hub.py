"""Data of a benchmark by the name of a dataset on the Hugging Face hub, in place of a folder."""

from __future__ import annotations

import re
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.tasks.task import Task

_HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def folder_of(task: Task, source: str) -> Path:
    """Folder with the files of a benchmark: `source` itself, or the hub's cache of the dataset `owner/name[@revision]`.

    Only the files that the benchmark needs are downloaded. With `HF_HUB_OFFLINE=1` the cache must have them.

    Raises UserError: it is neither, or the hub does not give it.
    """
    if Path(source).is_dir():
        return Path(source)
    named = _HUB_NAME.fullmatch(source)
    if named is None:
        raise UserError(
            f"there is no folder {source}, and it is no name of a dataset on the hub (owner/name[@revision])"
        )
    try:
        # not needed for folders, so it may not be installed
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"there is no folder {source}; to read it from the hub install huggingface_hub, or download its files and "
            "name their folder"
        ) from None
    repository, revision, patterns = named["repository"], named["revision"], hub_patterns(task)
    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # the hub's own errors are of these two
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"there is no folder {source}, and the hub does not give that dataset: {reason}") from None


def hub_patterns(task: Task) -> list[str]:
    """Patterns of the benchmark's files as the hub matches them, where `**/` does not stand for no folder."""
    return [form for pattern in task.hub_files for form in dict.fromkeys((pattern, pattern.removeprefix("**/")))]
