"""`python -m bench.tasks ARCHITECTURE…`: pretrains these, where it was not done before, and writes every task's
images."""

from __future__ import annotations

import sys

from bench.tasks.images import TaskName
from bench.tasks.pretraining import RECIPES, weights_of
from bench.tasks.task import folders_of

if __name__ == "__main__":
    for name in TaskName:
        print(folders_of(name))
    for architecture in sys.argv[1:] or RECIPES:
        print(weights_of(architecture))
