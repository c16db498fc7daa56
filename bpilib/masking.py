"""What looks like a secret does not get into tables, saved configurations and printed scripts."""

import re
from typing import Any

_SECRET = re.compile(
    r"(://[^/\s:@]*:)[^@/\s]+(?=@)"  # https://user:password@host
    r"|(\b[\w-]*(?:token|passwo?r?d|secret|api_?key|access_?key|signature)[\w-]*=)[^&\s\"']+",  # ?token=...
    re.IGNORECASE,
)


def masked(value: Any) -> Any:
    """A text, or the texts of a list or dict, with *** for passwords and tokens; other values as they are."""
    if isinstance(value, list):
        return [masked(entry) for entry in value]
    if isinstance(value, dict):
        return {name: masked(entry) for name, entry in value.items()}
    return _SECRET.sub(lambda match: f"{match[1] or match[2]}***", value) if isinstance(value, str) else value


def masked_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook without what papermill writes into it in plain text: its parameters are masked."""
    metadata = notebook["metadata"]
    if "papermill" in metadata:
        metadata["papermill"]["parameters"] = masked(metadata["papermill"].get("parameters", {}))
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", ()):
            cell["source"] = masked(cell["source"])
    return notebook
