"""What looks like a secret does not get into tables, saved configurations and printed scripts."""

import re
from typing import Any

_SECRET = re.compile(
    r"(://[^/\s:@]*:)[^@/\s]+(?=@)"  # https://user:password@host
    r"|(\b[\w-]*(?:token|passwo?r?d|secret|api_?key|access_?key|signature)[\w-]*=)[^&\s]+",  # ?token=..., API_KEY=...
    re.IGNORECASE,
)


def masked(value: Any) -> Any:
    """A text, or the texts of a list, with *** for passwords and tokens; other values as they are."""
    if isinstance(value, list):
        return [masked(entry) for entry in value]
    return _SECRET.sub(lambda match: f"{match[1] or match[2]}***", value) if isinstance(value, str) else value
