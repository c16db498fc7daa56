"""Raw files to a store of prepared clips: `prepare` makes one, `SkeletonStore` opens it."""

from bpilib.data.preparation import prepare
from bpilib.data.store import Problem, SkeletonStore

__all__ = ["Problem", "SkeletonStore", "prepare"]
