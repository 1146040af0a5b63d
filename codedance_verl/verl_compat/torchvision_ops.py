"""Lets a CUDA build of torchvision import beside a CPU build of torch.

Where only a package index without the CPU builds can be reached, torchvision's binary needs CUDA libraries that are
not there. torchvision tolerates that, but registers fake kernels for two operators which only the binary declares
("operator torchvision::nms does not exist"). Declared here, the import succeeds; what needs no binary (transforms,
video utilities) works, and calling one of the two operators raises an error.

`scripts/install.py` copies this file into site-packages, with a `.pth` line that imports it at start-up, where that is
needed. It must stay free of imports of ours and cheap: every Python process of the environment runs it.
"""

from __future__ import annotations

import sys

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class DeclareOperators:
    """Meta-path finder that declares the operators when torchvision is about to be imported, and finds nothing."""

    library: object = None

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        if name != "torchvision":
            return
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not cls]
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in OPERATORS:
            library.define(operator + SCHEMA)  # type: ignore[no-untyped-call]
        cls.library = library  # the declarations live as long as this object


def install() -> None:
    """Puts the finder first on the meta path; importing this module does it."""
    sys.meta_path.insert(0, DeclareOperators)


if "torchvision" not in sys.modules:
    install()
