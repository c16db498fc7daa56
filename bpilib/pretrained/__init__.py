"""Trained networks to load, save and share: `from_pretrained`, `save_pretrained`, and runs made from them.

A pretrained network is a folder of three files, by the conventions of the Hugging Face Hub:

    model.safetensors   the weights, of the network alone: text towers and texts are left out
    config.json         what is needed to build it and to feed it, class names, the figures that it must give
    README.md           the card, for people
"""

from bpilib.pretrained.importing import describe_stated, import_pretrained, import_streams
from bpilib.pretrained.loading import from_pretrained
from bpilib.pretrained.places import list_shipped
from bpilib.pretrained.saving import save_pretrained

__all__ = [
    "describe_stated",
    "from_pretrained",
    "import_pretrained",
    "import_streams",
    "list_shipped",
    "save_pretrained",
]
