"""Build step of the wheel: folders of the checkout that the package reads are copied into it."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED_FOLDERS = ("conf", "requirements")


class BuildWithFolders(build_py):
    """Builds the packages, then the folders that `codedance_verl/config/files.py` finds."""

    def run(self) -> None:
        if self.editable_mode:  # the folders are read where they lie
            super().run()
            return
        # What an earlier build left there would otherwise end up in the wheel, deleted modules included.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for name in SHIPPED_FOLDERS:
            shutil.copytree(name, Path(self.build_lib) / "codedance_verl" / name)


setup(cmdclass={"build_py": BuildWithFolders})
