"""Types of decoded JSON that the backend passes on without knowing its shape."""

from typing import Any

Json = Any
JsonObject = dict[str, Any]
