"""An empty prompts file with the names of one's own classes, to be filled in."""

from collections.abc import Iterable

import yaml

from bpilib.text.prompts import PARTS

_HINTS = {
    "head": "does it turn, bend, lead somewhere?",
    "hand": "what is it doing, what does it hold?",
    "arm": "raised, bent, swinging?",
    "hip": "still, turning, sinking?",
    "leg": "standing, bent, stepping?",
    "foot": "on the floor, lifted, kicking?",
}


def make_prompt_template(dataset: str, classes: Iterable[str]) -> str:
    """The YAML that `bpilib.text.prompts.load_prompts` reads, without texts: what is not filled in is refused there.

    Args:
        dataset: its name.
        classes: K names, in label order.
    """
    classes = list(classes)
    lines = [f"dataset: {_quoted(dataset)}", f"classes: [{', '.join(map(_quoted, classes))}]", "prompts:"]
    for number, name in enumerate(classes):
        lines.append(f"  - name: {_quoted(name)}")
        lines.append("    synonyms: []" + ("" if number else "  # other words for the whole action, at least one"))
        lines += [f"    {part}:" + ("" if number else f"  # {_HINTS[part]}") for part in PARTS]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text as YAML has it within a line, in quotes where it needs them."""
    return yaml.safe_dump([str(text)], default_flow_style=True, allow_unicode=True, width=10**6).strip()[1:-1]
