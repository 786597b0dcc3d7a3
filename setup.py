"""Find the packages, and install conf/ at the top of the clone as ``rlaif_lab.conf``. The rest is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["rlaif_lab*"]), "rlaif_lab.conf"])
